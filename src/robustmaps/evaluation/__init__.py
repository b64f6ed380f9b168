"""Cascades of attacks, verdicts per sample, rates with intervals, paired comparison."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.evaluation._checks import Finding
    from robustmaps.evaluation._comparison import Comparison, SeedStatistics, compare_all, holm, over_seeds
    from robustmaps.evaluation._corruptions import CorruptionEvaluation, MeanAccuracy, evaluate_corruptions
    from robustmaps.evaluation._diagnose import Diagnosis, diagnose
    from robustmaps.evaluation._evaluate import evaluate
    from robustmaps.evaluation._fingerprints import attack_settings, images_sha256, weights_sha256
    from robustmaps.evaluation._rates import Rate, SeedRate, rate_over_seeds
    from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation, compare

__all__ = [
    "ROBUST",
    "WRONG",
    "Comparison",
    "CorruptionEvaluation",
    "Diagnosis",
    "Evaluation",
    "Finding",
    "MeanAccuracy",
    "Rate",
    "SeedRate",
    "SeedStatistics",
    "attack_settings",
    "compare",
    "compare_all",
    "diagnose",
    "evaluate",
    "evaluate_corruptions",
    "holm",
    "images_sha256",
    "over_seeds",
    "rate_over_seeds",
    "weights_sha256",
]

# Lazy, so that recorded evaluations can be read without PyTorch.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "_checks": ["Finding"],
        "_comparison": ["Comparison", "SeedStatistics", "compare_all", "holm", "over_seeds"],
        "_corruptions": ["CorruptionEvaluation", "MeanAccuracy", "evaluate_corruptions"],
        "_diagnose": ["Diagnosis", "diagnose"],
        "_evaluate": ["evaluate"],
        "_result": ["Evaluation", "ROBUST", "WRONG", "compare"],
        "_fingerprints": ["attack_settings", "images_sha256", "weights_sha256"],
        "_rates": ["Rate", "SeedRate", "rate_over_seeds"],
    },
)

"""Layer 4: cascades of attacks, verdicts per sample, rates with intervals, paired comparison."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.evaluation._checks import Finding
    from robustmaps.evaluation._comparison import Comparison, SeedStatistics, compare_all, holm, over_seeds
    from robustmaps.evaluation._diagnose import Diagnosis, diagnose
    from robustmaps.evaluation._evaluate import evaluate
    from robustmaps.evaluation._evaluation import ROBUST, WRONG, Evaluation, compare
    from robustmaps.evaluation._identity import attack_settings, images_sha256, weights_sha256
    from robustmaps.evaluation._rates import Difference, Rate, SeedRate, paired_difference, rate_over_seeds

__all__ = [
    "ROBUST",
    "WRONG",
    "Comparison",
    "Diagnosis",
    "Difference",
    "Evaluation",
    "Finding",
    "Rate",
    "SeedRate",
    "SeedStatistics",
    "attack_settings",
    "compare",
    "compare_all",
    "diagnose",
    "evaluate",
    "holm",
    "images_sha256",
    "over_seeds",
    "paired_difference",
    "rate_over_seeds",
    "weights_sha256",
]

# Lazy, so that recorded evaluations can be read without PyTorch.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "_checks": ["Finding"],
        "_comparison": ["Comparison", "SeedStatistics", "compare_all", "holm", "over_seeds"],
        "_diagnose": ["Diagnosis", "diagnose"],
        "_evaluate": ["evaluate"],
        "_evaluation": ["ROBUST", "WRONG", "Evaluation", "compare"],
        "_identity": ["attack_settings", "images_sha256", "weights_sha256"],
        "_rates": ["Difference", "Rate", "SeedRate", "paired_difference", "rate_over_seeds"],
    },
)

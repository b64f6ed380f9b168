"""Layer 4: cascades of attacks, verdicts per sample, rates with intervals, paired comparison."""

from robustmaps.evaluation._checks import Finding
from robustmaps.evaluation._corruptions import CorruptionEvaluation, MeanAccuracy, evaluate_corruptions
from robustmaps.evaluation._diagnose import Diagnosis, diagnose
from robustmaps.evaluation._evaluate import evaluate
from robustmaps.evaluation._evaluation import ROBUST, WRONG, Evaluation, compare
from robustmaps.evaluation._identity import attack_settings, images_sha256, weights_sha256
from robustmaps.evaluation._rates import Difference, Rate, SeedRate, paired_difference, rate_over_seeds

__all__ = [
    "ROBUST",
    "WRONG",
    "CorruptionEvaluation",
    "Diagnosis",
    "Difference",
    "Evaluation",
    "Finding",
    "MeanAccuracy",
    "Rate",
    "SeedRate",
    "attack_settings",
    "compare",
    "diagnose",
    "evaluate",
    "evaluate_corruptions",
    "images_sha256",
    "paired_difference",
    "rate_over_seeds",
    "weights_sha256",
]

"""Layer 4: cascades of attacks, verdicts per sample, rates with intervals, paired comparison."""

from robustmaps.evaluation._evaluate import evaluate
from robustmaps.evaluation._evaluation import ROBUST, WRONG, Evaluation, compare
from robustmaps.evaluation._rates import Difference, Rate, SeedRate, paired_difference, rate_over_seeds

__all__ = [
    "ROBUST",
    "WRONG",
    "Difference",
    "Evaluation",
    "Rate",
    "SeedRate",
    "compare",
    "evaluate",
    "paired_difference",
    "rate_over_seeds",
]

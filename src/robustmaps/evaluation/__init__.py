"""Evaluation: cascades of attacks with a verdict per sample, rates with intervals and paired comparisons."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.evaluation._agreement import Computed, agree, read_computed
    from robustmaps.evaluation._checks import Doubt, Finding
    from robustmaps.evaluation._comparison import Comparison, compare_all, holm
    from robustmaps.evaluation._consistency import with_consistency
    from robustmaps.evaluation._corruptions import (
        CorruptionEvaluation,
        corruption_files,
        evaluate_corruptions,
        mean_accuracy,
    )
    from robustmaps.evaluation._diagnose import Diagnosis, diagnose
    from robustmaps.evaluation._eight_bit import check_saved
    from robustmaps.evaluation._evaluate import evaluate
    from robustmaps.evaluation._fingerprints import attack_settings, images_sha256, weights_sha256
    from robustmaps.evaluation._identity import Identity
    from robustmaps.evaluation._rates import deviation_over_seeds, over_seeds, rate_over_seeds
    from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation, EvaluationWarning, compare
    from robustmaps.evaluation._sharing._pool import WorkerPool
    from robustmaps.evaluation._sharing._ray import RayWorkers
    from robustmaps.evaluation._state import IMAGES_END, STATE_FILES, check_images, claim_state
    from robustmaps.evaluation._transfer import Transfer, for_transfer, right_on
    from robustmaps.evaluation._verdict_names import shown_names
    from robustmaps.evaluation._worst_case import ALONE, worst_case

__all__ = [
    "ALONE",
    "IMAGES_END",
    "ROBUST",
    "STATE_FILES",
    "WRONG",
    "Comparison",
    "Computed",
    "CorruptionEvaluation",
    "Diagnosis",
    "Doubt",
    "Evaluation",
    "EvaluationWarning",
    "Finding",
    "Identity",
    "RayWorkers",
    "Transfer",
    "WorkerPool",
    "agree",
    "attack_settings",
    "check_images",
    "check_saved",
    "claim_state",
    "compare",
    "compare_all",
    "corruption_files",
    "deviation_over_seeds",
    "diagnose",
    "evaluate",
    "evaluate_corruptions",
    "for_transfer",
    "holm",
    "images_sha256",
    "mean_accuracy",
    "over_seeds",
    "rate_over_seeds",
    "read_computed",
    "right_on",
    "shown_names",
    "weights_sha256",
    "with_consistency",
    "worst_case",
]

# Lazy, so that recorded evaluations can be read without PyTorch.
__getattr__, __dir__ = lazy(__name__, __file__)

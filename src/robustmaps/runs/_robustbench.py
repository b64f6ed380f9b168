"""An evaluation in the format of RobustBench's ``model_info`` files (arXiv 2010.09670)."""

from typing import Any

from robustmaps.engine.numbers import as_fraction
from robustmaps.evaluation import Evaluation
from robustmaps.networks import Checkpoint

_STANDARD = {"apgd-ce", "apgd-t", "fab-t", "square"}


def model_info(evaluation: Evaluation, checkpoint: Checkpoint, dataset: str) -> dict[str, Any]:
    """The leaderboard entry; fields that only the author knows are empty.

    ``autoattack_acc`` is set if all four attacks of the standard version ran; ``footnote`` lists the attacks that ran.
    """
    robust = f"{100 * evaluation.robust_accuracy.value:.2f}"
    names = [stage["name"] for stage in evaluation.stages]
    complete = set(names) >= _STANDARD and evaluation.split in (None, "test")
    low, high = (f"{100 * bound:.2f}" for bound in evaluation.robust_accuracy.interval)
    count, split = len(evaluation.verdicts), evaluation.split or "test"
    footnote = (
        f"{evaluation.norm}, {', '.join(names)}: {robust} % of {count} {split} images, "
        f"95 % interval [{low}, {high}], seed {evaluation.seed}."
    )
    return {
        "link": "",
        "name": checkpoint.name,
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": dataset,
        "venue": "",
        "architecture": checkpoint.architecture,
        "eps": as_fraction(evaluation.eps),
        "clean_acc": f"{100 * evaluation.clean_accuracy.value:.2f}",
        "reported": robust if complete else None,
        "autoattack_acc": robust if complete else None,
        "footnote": " ".join([footnote, *(f"Warning: {warning}." for warning in evaluation.warnings)]),
        "unreliable": bool(evaluation.warnings),
    }

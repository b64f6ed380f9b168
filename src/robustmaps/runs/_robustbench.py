"""An evaluation in the format of RobustBench's ``model_info`` files (arXiv 2010.09670)."""

import json
from pathlib import Path
from typing import Any

from robustmaps.config import read_run_config
from robustmaps.engine.checked import CHECKSUM
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_text
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation import Evaluation
from robustmaps.networks import Checkpoint
from robustmaps.training import RunFolder

INFO = ".model_info.json"
"""How the file beside an evaluation ends."""
_THREATS = {"linf": "Linf", "l2": "L2"}
_STANDARD = {"apgd-ce", "apgd-t", "fab-t", "square"}


def model_info(evaluation: Evaluation, checkpoint: Checkpoint, dataset: str) -> dict[str, Any]:
    """The leaderboard entry; fields that only the author knows are empty, see `robustbench_entry`.

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
        "additional_data": _had_more_data(checkpoint),
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


def _had_more_data(checkpoint: Checkpoint) -> bool:
    """Whether a run's configuration has extra images; of other networks nobody knows."""
    if checkpoint.path is None or not checkpoint.is_run:
        return False
    try:
        return read_run_config(RunFolder(checkpoint.path.parent).config).data.extra_data is not None
    except InputError:
        return False


def robustbench_entry(
    evaluation: str | Path,
    out: str | Path,
    *,
    name: str,
    authors: str,
    venue: str,
    link: str,
    additional_data: bool | None = None,
) -> Path:
    """Write the leaderboard entry of an evaluation, with what only its authors know.

    Args:
        evaluation: the file of an evaluation by AutoAttack's standard version on test images.
        out: a folder, such as a copy of RobustBench's repository; the entry goes into ``model_info/DATASET/THREAT``.
        name: the title of the paper.
        authors: their names, with commas.
        venue: where it appeared, such as ``ICLR 2026`` or ``Unpublished``.
        link: the address of the paper.
        additional_data: whether it was trained on more than the data set (default: as the run says).

    Returns:
        The file of the entry, called after the first author's surname and the architecture.

    Raises:
        InputError: a field is empty, the link is no address, the norm has no leaderboard, or the evaluation is not one
            that RobustBench takes.
    """
    path = Path(evaluation)
    for field, value in (("name", name), ("authors", authors), ("venue", venue)):
        if not value.strip():
            raise InputError(f"{field}={value!r}: expected what the leaderboard shows, such as venue='Unpublished'")
    if not link.startswith(("https://", "http://")):
        raise InputError(f"link={link!r}: expected the address of the paper, such as https://arxiv.org/abs/2202.12435")
    done = Evaluation.load(path)
    about = dict(read_json(path.with_name(f"{path.stem}{INFO}")))
    if done.norm not in _THREATS:
        raise InputError(f"{path}: RobustBench has no leaderboard for {done.norm}; expected {' or '.join(_THREATS)}")
    if about.get("autoattack_acc") is None:
        raise InputError(
            f"{path}: RobustBench takes AutoAttack's standard version on test images; first run robustmaps evaluate "
            "RUN --attack autoattack"
        )
    more = about["additional_data"] if additional_data is None else additional_data
    entry = {
        **{key: value for key, value in about.items() if key != CHECKSUM},
        "name": name,
        "authors": authors,
        "venue": venue,
        "link": link,
        "additional_data": more,
    }
    surname = authors.partition(",")[0].split()[-1]
    file = "_".join("".join(c for c in part if c.isalnum() or c in "-") for part in (surname, about["architecture"]))
    target = Path(out) / "model_info" / str(about["dataset"]) / _THREATS[done.norm] / f"{file}.json"
    claim(target, ours=json_with("clean_acc", "autoattack_acc", name=name))
    write_text(target, json.dumps(entry, indent=2, ensure_ascii=False) + "\n")
    return target

"""What can be compared: runs, evaluated networks and single evaluations, each as a record."""

from dataclasses import replace
from pathlib import Path

from robustmaps.config import EvaluatedNetwork
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.runs._record import RunRecord, is_result_folder, read_run, record_of


def read_result(path: str | Path) -> RunRecord:
    """Read a run, an evaluated network, or one evaluation, by its file.

    Args:
        path: a run folder, a folder that `robustmaps enlarge` saved, a folder of evaluations, or an evaluation.

    Raises:
        InputError: it is none of these, or can't be read.
    """
    given = Path(path)
    if (given / "recipe.json").exists() and not is_result_folder(given):
        raise InputError(f"{given}: not evaluated yet; first run robustmaps evaluate {given} --data DATA")
    if not given.is_file():
        return read_run(given)
    evaluation = Evaluation.load(given)
    around = (folder for folder in given.absolute().parents if is_result_folder(folder))
    folder = next(around, None)
    if folder is None:
        known = EvaluatedNetwork(given.stem, evaluation.checkpoint_sha256 or "unknown")
        record = record_of(given.with_suffix(""), known, {})
    else:
        record = read_run(folder, skipped=lambda *_: None)
    # Whoever names two files compares these, of whichever weights.
    return replace(record, evaluations={given.stem: replace(evaluation, weights=None)})

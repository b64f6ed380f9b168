"""The contents of run folders, read without PyTorch: hundreds of runs take about a second."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from robustmaps.config import RunConfig, read_run_config
from robustmaps.engine.checked import read_json
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import sha256
from robustmaps.evaluation import Evaluation
from robustmaps.runs._identity import outdated
from robustmaps.training import RunFolder, best_epoch

Status = Literal["finished", "running", "stopped", "failed"]

# Other files among the evaluations.
_OTHER_KINDS = ("diagnosis-", "curve-")
_DEPTH = 3


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run folder.

    Attributes:
        folder: the run folder.
        config: the complete configuration.
        history: the figures of each finished epoch, from ``metrics.jsonl``.
        best_epoch: the epoch, from 1, of the best weights so far; None if there are none yet.
        status: ``finished``, ``running`` (a process has locked the folder), ``stopped``, or ``failed``, in training or,
            in a sweep, in evaluation.
        error: the error, if it failed.
        seconds: time spent training and validating in finished epochs.
        evaluations: evaluations by file name without ``.json``, sorted.
        environment: versions and device; empty if not recorded.
        recorded_cost: the network's cost for one image, for `Cost.from_dict`; None if the run did not record it.
    """

    folder: Path
    config: RunConfig
    history: tuple[Mapping[str, Any], ...]
    best_epoch: int | None
    status: Status
    error: str | None
    seconds: float
    evaluations: Mapping[str, Evaluation]
    environment: Mapping[str, Any]
    recorded_cost: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


Skipped = Callable[[Path, str], None]


def _warn(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: skipped, {reason}", stacklevel=3)


def read_runs(folder: str | Path, *, skipped: Skipped = _warn) -> tuple[RunRecord, ...]:
    """Read all runs in a folder, such as ``runs`` or a study's, sorted by name.

    Args:
        folder: a run folder, or a folder of runs, at most three levels deep.
        skipped: called with each unreadable or unrelated folder or file that looks like a run or an evaluation, and
            the reason; by default a warning.

    Raises:
        InputError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder of runs")
    records = []
    for path in _run_folders(root, skipped, _DEPTH):
        try:
            records.append(read_run(path, skipped=skipped))
        except InputError as error:
            skipped(path, str(error))
    return tuple(records)


def read_run(folder: str | Path, *, skipped: Skipped = _warn) -> RunRecord:
    """Read one run folder.

    Args:
        folder: the run folder.
        skipped: called with each evaluation that can't be read, and the reason; by default a warning.

    Raises:
        InputError: the folder is not a run folder, or its configuration can't be read.
    """
    path = Path(folder)
    files = RunFolder(path)
    if not (files.config).exists():
        raise InputError(f"{path}: not a run folder, it has no config.yaml")
    config = read_run_config(files.config)
    history = _history(files, skipped)
    error = _text(files.error)
    return RunRecord(
        folder=path,
        config=config,
        history=history,
        best_epoch=best_epoch(history, config.training.epochs),
        status=_status(files, history, config, error),
        error=error,
        seconds=sum(record.get("train_s", 0.0) + record.get("validation_s", 0.0) for record in history),
        evaluations=_evaluations(files, skipped),
        environment=_mapping(files.environment, skipped) or {},
        recorded_cost=_mapping(files.cost, skipped),
    )


def _run_folders(folder: Path, skipped: Skipped, depth: int) -> Iterator[Path]:
    if (folder / "config.yaml").exists():
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith("."):
            continue
        inside = list(_run_folders(child, lambda *_: None, depth - 1)) if depth else []
        if not inside and not _is_report(child) and any(not part.name.startswith(".") for part in child.iterdir()):
            skipped(child, "not a run folder, it has no config.yaml")
        yield from inside


def _is_report(folder: Path) -> bool:
    """Whether it looks like a report, even half written; the report's own code is avoided since it needs PyTorch."""
    return (folder / "index.html").is_file()


def _history(files: RunFolder, skipped: Skipped) -> tuple[dict[str, Any], ...]:
    """The recorded epochs; none if the record is damaged."""
    try:
        return tuple(files.read_history(lambda text: skipped(files.metrics, text)))
    except InputError as error:
        skipped(files.metrics, str(error))
        return ()


def _status(files: RunFolder, history: tuple[Mapping[str, Any], ...], config: RunConfig, error: str | None) -> Status:
    if len(history) >= config.training.epochs and files.best.exists():
        return "finished" if error is None else "failed"
    if _is_held(files.lock):
        return "running"
    return "stopped" if error is None else "failed"


def _is_held(path: Path) -> bool:
    """Whether a process has the lock."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # another user's folder
        return False


def _evaluations(files: RunFolder, skipped: Skipped) -> dict[str, Evaluation]:
    """The evaluations of the current weights, without those from before further training."""
    found: dict[Path, Evaluation] = {}
    for path in sorted(files.evaluations.glob("*.json")):
        if path.name.startswith((".", *_OTHER_KINDS)) or path.name.endswith(".model_info.json"):
            continue
        try:
            found[path] = Evaluation.load(path)
        except InputError as error:
            skipped(path, str(error))
    weights = files.best
    # Times tell nothing: a copy or a restored file has any.
    present = sha256(weights) if found and weights.exists() else None
    for path, evaluation in list(found.items()):
        if present is not None and evaluation.checkpoint_sha256 not in (None, present):
            skipped(path, "it is of weights that are no longer in the run; evaluate again")
            del found[path]
        elif outdated(files.evaluations, evaluation):
            skipped(path, "with these weights, the network has computed something else since; evaluate again")
            del found[path]
    return {path.stem: evaluation for path, evaluation in found.items()}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _mapping(path: Path, skipped: Skipped) -> dict[str, Any] | None:
    try:
        return read_json(path, "delete it")
    except OSError:
        return None
    except InputError as error:
        skipped(path, str(error))
        return None

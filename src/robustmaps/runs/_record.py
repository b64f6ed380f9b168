"""The contents of run folders, read without PyTorch: hundreds of runs take about a second."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from robustmaps.config import (
    EVALUATED,
    EvaluatedNetwork,
    RunConfig,
    flat_values,
    folder_of_evaluated,
    read_evaluated,
    read_run_config,
)
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular, sha256
from robustmaps.engine.numbers import check_whole, counted
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.evaluation import Computed, Evaluation
from robustmaps.runs._identity import why_outdated
from robustmaps.training import RUN_WEIGHTS, RunFolder, best_epoch, is_chosen

Status = Literal["finished", "running", "stopped", "failed", "evaluated"]

# Other files among the evaluations.
_OTHER_KINDS = ("diagnosis-", "curve-", "transfer-", "corruptions-")
_DEPTH = 3
# Of a network that was not trained here.
_KNOWN = ("model", "strides", "pool", "enlarge", "init_from", "data", "image_size", "channels", "classes")
_MOST_BYTES = 1 << 20
_MOST_ERROR_BYTES = 1 << 16


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run folder.

    Attributes:
        folder: the run folder.
        config: the complete configuration.
        history: the figures of each finished epoch, from ``metrics.jsonl``.
        best_epoch: the epoch, from 1, of the best weights so far; None if there are none yet.
        status: ``finished``, ``running`` (a process has locked the folder), ``stopped``, or ``failed``, in training or,
            in a sweep, in evaluation; ``evaluated`` for a network that was not trained here, of which only the network,
            the data and the budget in ``config`` are known.
        error: the error, if it failed.
        seconds: time spent training and validating in finished epochs.
        evaluations: evaluations by file name without ``.json``, sorted; those of other weights than the best come last
            and begin with their name, as in ``last/``.
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

    def __repr__(self) -> str:
        done = f"{counted(len(self.history), 'epoch')}, {counted(len(self.evaluations), 'evaluation')}"
        return f"RunRecord({self.folder}: {self.status}, {done})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def settings(self) -> dict[str, Any]:
        """The flat keys of the configuration; None for those that are not known of an evaluated network."""
        return {key: value if self.knows(key) else None for key, value in flat_values(self.config).items()}

    def knows(self, key: str) -> bool:
        """Whether a flat key of the configuration is known: all of a run, few of a network that was only evaluated."""
        return self.status != "evaluated" or key in _KNOWN

    @property
    def results(self) -> Path:
        """The folder of its evaluations, diagnoses and curves."""
        return self.folder if os.path.lexists(self.folder / EVALUATED) else self.folder / "evaluation"

    @property
    def kept(self) -> str:
        """The epoch of the weights, and whether it is the best on validation images or the last; empty if none yet."""
        if self.best_epoch is None:
            return ""
        return f"{self.best_epoch} ({'best' if is_chosen(self.history) else 'last'})"


@dataclass(frozen=True)
class _RecordedCost:
    """The fields of `robustmaps.models.Cost`, which needs PyTorch."""

    flops: int
    parameters: int
    activation_bytes: int
    map_size: tuple[int, int] | None
    latency_s: float | None = None
    mean_flops: float | None = None


Skipped = Callable[[Path, str], None]
"""Receives a path and the reason why it was left out."""


def _warn(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: skipped, {reason}", stacklevel=3)


def read_runs(
    folder: str | Path, *, skipped: Skipped = _warn, unreadable: Skipped | None = None
) -> tuple[RunRecord, ...]:
    """Read all runs in a folder, such as ``runs`` or a study's, sorted by name.

    No damage to one run keeps the others from being read.

    Args:
        folder: a run folder, or a folder of runs, at most three levels deep.
        skipped: called with each unrelated folder and outdated evaluation, and the reason; by default a warning.
        unreadable: the same for folders and files that can't be read; by default ``skipped``.

    Raises:
        InputError: the folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a folder of runs")
    unreadable = unreadable or skipped
    records = []
    for path in _run_folders(root, skipped, unreadable, _DEPTH):
        try:
            records.append(read_run(path, skipped=skipped, unreadable=unreadable))
        except InputError as error:
            unreadable(path, str(error))
    return tuple(records)


def is_result_folder(folder: Path) -> bool:
    """Whether it is a run folder, or has the results of a network that was not trained here."""
    return os.path.lexists(folder / "config.yaml") or folder_of_evaluated(folder) is not None


def read_run(folder: str | Path, *, skipped: Skipped = _warn, unreadable: Skipped | None = None) -> RunRecord:
    """Read one run folder.

    Args:
        folder: the run folder.
        skipped: called with each outdated evaluation, and the reason; by default a warning.
        unreadable: the same for files that can't be read; by default ``skipped``.

    Raises:
        InputError: the folder is not a run folder, or its configuration can't be read.
    """
    path = Path(folder)
    try:
        return _read_run(path, skipped, unreadable or skipped)
    except InputError:
        raise
    except Exception as error:  # one bad neighbour must not take the others down
        raise InputError(f"{path}: can't be read ({type(error).__name__}: {error})") from error


def _read_run(path: Path, skipped: Skipped, unreadable: Skipped) -> RunRecord:
    files = RunFolder(path)
    if not os.path.lexists(files.config):
        if (place := folder_of_evaluated(path)) is not None:
            return _read_evaluated(path, place, skipped, unreadable)
        raise InputError(f"{path}: not a run folder, it has no config.yaml")
    config = read_run_config(files.config)
    history = _history(files, config.training.epochs, unreadable)
    error = _error(files.error, unreadable)
    return RunRecord(
        folder=path,
        config=config,
        history=history,
        best_epoch=best_epoch(history, config.training.epochs),
        status=_status(files, history, config, error),
        error=error,
        seconds=sum(record.get("train_s", 0.0) + record.get("validation_s", 0.0) for record in history),
        evaluations=_evaluations(files, skipped, unreadable),
        environment=_mapping(files.environment, unreadable) or {},
        recorded_cost=_cost(files.cost, unreadable),
    )


def _read_evaluated(path: Path, place: Path, skipped: Skipped, unreadable: Skipped) -> RunRecord:
    known = read_evaluated(place)
    assert known is not None  # noqa: S101 - the folder has its record
    evaluations = _evaluations_of(lambda: known.checkpoint_sha256, place, skipped, unreadable)
    record = record_of(path, known, evaluations)
    cost = None if known.cost is None else _checked_cost(known.cost, place / EVALUATED, unreadable)
    return replace(record, recorded_cost=cost)


def record_of(path: Path, known: EvaluatedNetwork, evaluations: Mapping[str, Evaluation]) -> RunRecord:
    """The record of a network that was not trained here."""
    return RunRecord(
        folder=path,
        config=known.config,
        history=(),
        best_epoch=None,
        status="evaluated",
        error=None,
        seconds=0.0,
        evaluations=evaluations,
        environment=next((one.environment for one in evaluations.values()), {}),
        recorded_cost=None,
    )


def _run_folders(folder: Path, skipped: Skipped, unreadable: Skipped, depth: int) -> Iterator[Path]:
    if is_result_folder(folder):
        yield folder
        return
    for child in _children(folder, unreadable):
        if not child.is_dir() or child.name.startswith(".") or _is_above(child):
            continue
        inside = list(_run_folders(child, lambda *_: None, unreadable, depth - 1)) if depth else []
        parts = [] if inside or _is_report(child) else _children(child, lambda *_: None)
        if any(not part.name.startswith(".") for part in parts):
            skipped(child, "not a run folder, it has no config.yaml")
        yield from inside


def _children(folder: Path, unreadable: Skipped) -> list[Path]:
    """What is in a folder, sorted; nothing if that can't be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        unreadable(folder, f"can't be read ({error.strerror})")
        return []


def _is_above(folder: Path) -> bool:
    """Whether it is a link to a folder around it, in which everything would be found again."""
    around = folder.absolute().parent.resolve()
    return folder.is_symlink() and folder.resolve() in (around, *around.parents)


def _is_report(folder: Path) -> bool:
    """Whether it looks like a report, even half written; the report's own code is avoided since it needs PyTorch."""
    return (folder / "index.html").is_file()


def _history(files: RunFolder, epochs: int, unreadable: Skipped) -> tuple[dict[str, Any], ...]:
    """The recorded epochs; none if the record is damaged."""
    history: tuple[dict[str, Any], ...] = ()
    try:
        history = tuple(files.read_history(lambda text: unreadable(files.metrics, text)))
        files.check_whole(history, epochs)
    except InputError as error:
        unreadable(files.metrics, str(error))
    return history


def _status(files: RunFolder, history: tuple[Mapping[str, Any], ...], config: RunConfig, error: str | None) -> Status:
    if len(history) >= config.training.epochs and files.best.is_file():
        return "finished" if error is None else "failed"
    if _is_held(files.lock):
        return "running"
    return "stopped" if error is None else "failed"


def _is_held(path: Path) -> bool:
    """Whether a process has the lock."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # another user's folder
        return False


def _evaluations(files: RunFolder, skipped: Skipped, unreadable: Skipped) -> dict[str, Evaluation]:
    """The evaluations of the current weights, without those from before further training."""
    found = _evaluations_of(lambda: _hash_of(files.best), files.evaluations, skipped, unreadable)
    for which in RUN_WEIGHTS[1:]:
        weights = files.path / f"{which}.safetensors"
        others = _evaluations_of(partial(_hash_of, weights), files.evaluations_of(weights), skipped, unreadable)
        found |= {f"{which}/{name}": evaluation for name, evaluation in others.items()}
    return found


def evaluations_of(weights_sha256: str, folder: Path) -> dict[str, Evaluation]:
    """The evaluations in a folder of the weights with a hash, by name; the others are left out without a word.

    Args:
        weights_sha256: see `Checkpoint.sha256`.
        folder: the folder of results.
    """
    return _evaluations_of(lambda: weights_sha256, folder, lambda *_: None, _warn)


def _hash_of(weights: Path) -> str | None:
    return sha256(weights) if weights.is_file() else None


def _evaluations_of(
    present_weights: Callable[[], str | None], folder: Path, skipped: Skipped, unreadable: Skipped
) -> dict[str, Evaluation]:
    """The evaluations in a folder by name, but for those of other weights than the present ones, which have a hash."""
    found: dict[Path, Evaluation] = {}
    for path in _children(folder, unreadable) if os.path.lexists(folder) else []:
        if path.suffix != ".json" or path.name.startswith((".", *_OTHER_KINDS)):
            continue
        if path.name == EVALUATED or path.name.endswith(".model_info.json"):
            continue
        try:
            found[path] = Evaluation.load(path)
        except InputError as error:
            unreadable(path, str(error))
    # Times tell nothing: a copy or a restored file has any.
    present = present_weights() if found else None
    for path, evaluation in list(found.items()):
        reason = why_outdated(folder, present, evaluation.checkpoint_sha256, evaluation.computes)
        if reason is not None:
            skipped(path, f"{reason}; evaluate again")
            del found[path]
    return {path.stem: evaluation for path, evaluation in found.items()}


def outdated_result(folder: Path, checkpoint_sha256: str | None, computes: Computed | None) -> str | None:
    """Why a result in a run folder is not of its present network, by what was recorded of it; None if it is."""
    files = RunFolder(folder)
    place = folder_of_evaluated(folder)
    known = None if place is None else read_evaluated(place)
    if known is not None and place is not None:
        return why_outdated(place, known.checkpoint_sha256, checkpoint_sha256, computes)
    return why_outdated(files.evaluations, _hash_of(files.best), checkpoint_sha256, computes)


def _error(path: Path, unreadable: Skipped) -> str | None:
    """The error of a failed run; None if there is none."""
    if not os.path.lexists(path):
        return None
    try:
        check_regular(path, "the error of a failed run")
        with path.open("rb") as file:
            return file.read(_MOST_ERROR_BYTES).decode(errors="replace")
    except (InputError, OSError) as error:
        unreadable(path, str(error))
        return "an error that can't be read"


def _mapping(path: Path, unreadable: Skipped) -> dict[str, Any] | None:
    try:
        return read_json(path, "delete it", most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        return None
    except InputError as error:
        unreadable(path, str(error))
        return None


def _cost(path: Path, unreadable: Skipped) -> dict[str, Any] | None:
    """The cost of a network that was trained, which has parameters and operations."""
    values = _mapping(path, unreadable)
    return None if values is None else _checked_cost(values, path, unreadable)


def _checked_cost(values: Mapping[str, Any], path: Path, unreadable: Skipped) -> dict[str, Any] | None:
    try:
        found = declared(_RecordedCost, values)
        for name in ("flops", "parameters", "activation_bytes"):
            check_whole(name, getattr(found, name), 1)
    except InputError as error:
        unreadable(path, f"{path}: not the cost of a network ({error}); delete it")
        return None
    return vars(found)

"""The run folder: everything needed to resume, evaluate and report, written so that a crash loses nothing.

PyTorch is imported only to write or read checkpoints, so that hundreds of runs can be listed without it.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustmaps.engine.checked import CHECKSUM, Damaged, sealed, unsealed
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import append_line, atomic, keep, read_limited, remove, rename_file, write_json, write_text
from robustmaps.engine.reading.plain import loads, read_json
from robustmaps.engine.writing.outputs import LOCK, alone, claim, claim_folder, json_with

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RUN_WEIGHTS = ("best", "best-clean", "last")
"""The weights of a finished run: best on validation images (robust first), best there by clean accuracy, and last."""

PROGRAM = "program"
"""What an own network computes, kept beside its weights; see `robustmaps.networks`."""

BEFORE_ENLARGING = "before_enlarging"
"""The key, with the value 1, of epochs in which a network was trained that is enlarged later."""

# Of a hundred thousand epochs.
_MOST_METRICS_BYTES = 1 << 26
_DAMAGED = "damaged.pt"
_FINISHED = ("finished; best epoch ", "finished; last epoch ")
_LOG_END_BYTES = 4096
_AGAIN = "resume the run with --resume to write it again from the checkpoint"


class RunFolder:
    """The files of one run.

    Args:
        path: the folder, created with the first file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def last(self) -> Path:
        """The newest checkpoint, with everything needed to resume."""
        return self.path / "last.pt"

    @property
    def before(self) -> Path:
        """The checkpoint before the newest, from which a run resumes if the newest is damaged."""
        return self.path / "before.pt"

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.last.exists() or self.before.exists()

    @property
    def best(self) -> Path:
        """The weights with the best validation figures."""
        return self.path / "best.safetensors"

    def weights(self, which: str) -> Path:
        """The file of one of `RUN_WEIGHTS`; of runs by earlier versions, the best's if that is the same epoch.

        Raises:
            InputError: they were not kept.
        """
        path = self.path / f"{which}.safetensors"
        if which == RUN_WEIGHTS[0] or path.exists() or not self.best.exists():
            return path if path.exists() else self.best
        epochs = kept_epochs(self.read_history())
        if which not in epochs:
            raise InputError(f"{self.path}: had no validation images, so that no epoch is {which}; expected last")
        if epochs[which] != epochs[RUN_WEIGHTS[0]]:
            raise InputError(
                f"{self.path}: its {which} weights (epoch {epochs[which]}) are not there; they are kept when a run is "
                "finished, which --resume does, and by earlier versions not at all"
            )
        return self.best

    def evaluations_of(self, weights: Path) -> Path:
        """The folder of evaluations of one of the run's weights files."""
        other = other_weights(weights)
        return self.evaluations if other is None else self.evaluations / other

    @property
    def config(self) -> Path:
        """The configuration, in the command line's format."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One line of JSON per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """The folder of evaluations."""
        return self.path / "evaluation"

    @property
    def error(self) -> Path:
        """The error of a failed run, removed when the run resumes."""
        return self.path / "error.txt"

    @property
    def program(self) -> Path:
        """What the network of somebody's own function computes, so that the run opens without that function."""
        return self.path / f"{PROGRAM}.safetensors"

    @property
    def reproduction(self) -> Path:
        """Says that the run is another one made again, by `robustmaps.runs.reproduce`."""
        return self.path / "reproduction.json"

    @property
    def cost(self) -> Path:
        """The network's cost for one image."""
        return self.path / "cost.json"

    @property
    def environment(self) -> Path:
        """The run's software and hardware."""
        return self.path / "environment.json"

    @property
    def lock(self) -> Path:
        """The lock of the training process."""
        return self.path / LOCK

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, so that only one process trains in it, and remove partial files of a killed process.

        Raises:
            InputError: another process has locked it.
        """
        with alone(self.lock, "training this run"):
            # Of earlier versions; see `temporary` for the others.
            for name in (self.last.name, self.best.name):
                for partial in self.path.glob(f".{name}.*.tmp"):
                    remove(partial)
            yield

    def claim(self) -> None:
        """Refuse a folder with other people's files or in another run, and a run whose checkpoint was deleted.

        Raises:
            InputError: the folder contains something else, or is in another run.
        """
        outer = None if self.begun else enclosing_run(self.path)
        if outer is not None:
            raise InputError(f"{self.path}: is inside the run {outer}; choose a folder of its own for the new run")
        claim_folder(
            self.path, self._is_ours, "a run folder", beside=("log.txt", self.error.name, self.reproduction.name)
        )
        if not self.begun:
            claim(self.metrics)  # written after the checkpoint, so that a killed run never has it alone

    @property
    def is_run(self) -> bool:
        """Whether the folder has a run."""
        return self.config.exists() and (self.begun or self.best.exists())

    def _is_ours(self, _: Path) -> bool:
        known = json_with("robustmaps", "torch")
        return self.config.exists() or self.begun or known(self.environment)

    def log(self, text: str) -> None:
        """Add a line to log.txt, with the time."""
        append_line(self._log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def log_finish(self, epoch: int, *, chosen: bool) -> None:
        """Add the last line of a finished run to log.txt.

        Args:
            epoch: that of the kept weights.
            chosen: whether validation images chose it; otherwise it is the last one.
        """
        self.log(f"{_FINISHED[not chosen]}{epoch}")

    def check_whole(self, history: Sequence[Mapping[str, Any]], epochs: int) -> None:
        """Refuse a history that lacks epochs of a run that was finished, such as one cut off between two lines.

        Raises:
            Damaged: the log has the line of a finished run, and the history fewer epochs.
        """
        if len(history) >= epochs or not self._log.is_file() or not self.best.is_file():
            return
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _LOG_END_BYTES))
            end = file.read().decode(errors="replace")
        if any(line in end for line in _FINISHED):
            raise Damaged(
                f"{self.metrics}: {len(history)} of {epochs} epochs, though {self._log.name} says that the run was "
                f"finished; {_AGAIN}"
            )

    @property
    def _log(self) -> Path:
        return self.path / "log.txt"

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Rewrite metrics.jsonl, so that it never has more epochs than the checkpoint; without any there is no file."""
        if not history:
            remove(self.metrics)
            return
        write_text(self.metrics, "".join(json.dumps(sealed(record), allow_nan=False) + "\n" for record in history))

    def read_history(self, note: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
        """The epochs recorded so far; a last line that was cut off is left out.

        Args:
            note: called with a line about it.

        Raises:
            Damaged: another line is damaged or missing, or all are though there are weights of an epoch.
        """
        if not os.path.lexists(self.metrics):
            return []
        text = read_limited(self.metrics, _MOST_METRICS_BYTES, "one line of JSON per epoch")
        if not text and self.best.exists():
            raise Damaged(f"{self.metrics}: empty; {_AGAIN}")
        lines = text.splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            where = f"{self.metrics}, line {number}"
            try:
                record = {"epoch": number, **unsealed(loads(line), where, _AGAIN)}
                if record["epoch"] != number:
                    raise Damaged(f"{where}: found epoch {record['epoch']}, expected {number}; {_AGAIN}")
                for name, value in record.items():
                    if not isinstance(value, int | float):
                        raise Damaged(f"{where}: {name}={str(value)[:40]}: expected a number; {_AGAIN}")
            except InputError:
                raise
            except ValueError as error:
                if number == len(lines) and not text.endswith("\n") and CHECKSUM not in line:
                    note(f"{where}: cut off, and left out; {_AGAIN}")
                    break
                raise Damaged(f"{where}: damaged ({error}); {_AGAIN}") from error
            records.append(record)
        return records

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Record the run's software and hardware; those of earlier calls, if others, are kept under ``before``."""
        found = self.read_environment()
        earlier = found.pop("before", [])
        before = [*(earlier if isinstance(earlier, list) else []), found] if found else []
        others = [each for each in before if each != environment]
        write_json(self.environment, {**environment, **({"before": others} if others else {})})

    def read_environment(self) -> dict[str, Any]:
        """The run's software and hardware; empty if not recorded."""
        try:
            return read_json(self.environment)
        except (OSError, ValueError):
            return {}

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint atomically, and keep the one before."""
        import torch

        with atomic(self.last) as file:
            torch.save(dict(state), file)
            if self.last.exists():
                keep(self.last, self.before)

    def load_last(self, device: "torch.device") -> dict[str, Any]:
        """Read the newest checkpoint, or the one before with a warning if the newest is missing or damaged.

        A damaged one is moved aside. Nothing is unpickled.

        Raises:
            Damaged: neither can be read.
        """
        try:
            return _read_checkpoint(self.last, device)
        except Damaged as damage:
            try:
                state = _read_checkpoint(self.before, device)
            except Damaged as other:
                mend = "restore one from a copy, or delete them to train from the beginning"
                raise Damaged(f"{damage}, and {other}; {mend}") from damage
            if self.last.exists():
                rename_file(self.last, self.path / _DAMAGED)
            rename_file(self.before, self.last)
            reason = str(damage)
        text = f"{reason}; resuming from the checkpoint before it (epoch {state['state']['epoch'] + 1})"
        self.log(text)
        warnings.warn(text, stacklevel=2)
        return state

    def save_weights(self, which: str, weights: "Mapping[str, Tensor]", description: Mapping[str, str]) -> None:
        """Write one of `RUN_WEIGHTS` as safetensors, atomically."""
        from robustmaps.training._weights import save_weights

        save_weights(self.path / f"{which}.safetensors", weights, description)


def _read_checkpoint(path: Path, device: "torch.device") -> dict[str, Any]:
    """Read a checkpoint whose parts have the CRC-32 that the format records, which PyTorch does not verify.

    Raises:
        Damaged: the file is missing or damaged.
    """
    from robustmaps.engine.reading.binary import load_tensors, read_whole

    if not os.path.lexists(path):
        raise Damaged(f"{path}: missing")
    try:
        state = load_tensors(read_whole(path, "a checkpoint"), device)
    except Exception as error:  # both libraries raise many types for a damaged file
        reason = str(error).partition("\n")[0]
        raise Damaged(f"{path}: can't be read as a checkpoint ({type(error).__name__}: {reason})") from error
    if not isinstance(state, dict) or "settings" not in state:
        raise Damaged(f"{path}: not a checkpoint written by robustmaps")
    return state


def validation_score(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The validation figures that select the best epoch, most important first.

    None without them, and for an epoch of a network that was enlarged later: its figures are not those of the network
    that is kept.
    """
    clean = record.get("validation_clean_accuracy")
    if clean is None or record.get(BEFORE_ENLARGING):
        return None
    return (record.get("validation_robust_accuracy", clean), clean)


def clean_score(record: Mapping[str, Any]) -> float:
    """The clean accuracy that selects the best epoch by it; -1 where `validation_score` is None."""
    score = validation_score(record)
    return -1.0 if score is None else score[1]


def is_chosen(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether validation images chose the epoch of the kept weights; otherwise it is the last one."""
    return any(validation_score(record) is not None for record in history)


def other_weights(path: Path) -> str | None:
    """Which of `RUN_WEIGHTS` a file in a run folder has, if not the best."""
    return path.stem if path.stem in RUN_WEIGHTS[1:] else None


def kept_epochs(history: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The epochs, from 1, of `RUN_WEIGHTS` so far; none is the best by clean accuracy without validation images."""
    best, last = best_epoch(history, len(history)), len(history)
    clean = [clean_score(record) for record in history]
    by_clean = {"best-clean": clean.index(max(clean)) + 1} if clean and max(clean) >= 0 else {}
    return {"best": best or last, **by_clean, "last": last}


def best_epoch(history: Sequence[Mapping[str, Any]], epochs: int) -> int | None:
    """The epoch, from 1, with the highest validation figures; the earliest of ties, or the last without any.

    Args:
        history: the epochs so far.
        epochs: the planned number of epochs.
    """
    best, highest = None, (-1.0, -1.0)
    for number, record in enumerate(history, 1):
        score = validation_score(record)
        if score is not None and score > highest:
            best, highest = number, score
    return len(history) if best is None and len(history) == epochs else best


def enclosing_run(path: Path) -> Path | None:
    """The run in whose folder a path is; None if it is in none."""
    return next((folder for folder in path.absolute().parents if RunFolder(folder).is_run), None)

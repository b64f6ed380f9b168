"""The run folder: everything needed to resume, evaluate and report, written so that a crash loses nothing.

PyTorch is imported only to write or read checkpoints, so that hundreds of runs can be listed without it.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, write_json, write_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Longer than another process holds the lock to check whether it is free.
_LOCK_S = 0.5


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
    def best(self) -> Path:
        """The weights with the best validation figures."""
        return self.path / "best.safetensors"

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
        return self.path / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, so that only one process trains in it, and remove partial files of a killed process.

        Raises:
            InputError: another process has locked it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=_LOCK_S)
        except Timeout:
            raise InputError(f"{self.path}: another process is training this run; wait for it or stop it") from None
        try:
            for name in (self.last.name, self.best.name):
                for partial in self.path.glob(f".{name}.*.tmp"):
                    partial.unlink()
            yield
        finally:
            lock.release()

    def log(self, text: str) -> None:
        """Add a line to log.txt, with the time."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Rewrite metrics.jsonl, so that it never has more epochs than the checkpoint."""
        write_text(self.metrics, "".join(json.dumps(record, allow_nan=False) + "\n" for record in history))

    def read_history(self) -> list[dict[str, Any]]:
        """The epochs recorded so far."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Record the run's software and hardware; those of earlier calls, if others, are kept under ``before``."""
        try:
            found = json.loads(self.environment.read_text(encoding="utf-8"))
            before = [*found.pop("before", ()), found]
        except (OSError, ValueError, AttributeError, TypeError):
            before = []
        others = [each for each in before if each != environment]
        write_json(self.environment, {**environment, **({"before": others} if others else {})})

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint atomically."""
        import torch

        with atomic(self.last) as file:
            torch.save(dict(state), file)

    def load_last(self, device: "torch.device") -> dict[str, Any]:
        """Read the checkpoint without unpickling code.

        Raises:
            InputError: the file is damaged.
        """
        import torch

        try:
            state = torch.load(self.last, map_location=device, weights_only=True)
        except Exception as error:  # torch.load raises many types for a damaged file
            raise InputError(f"{self.last}: can't be read as a checkpoint ({type(error).__name__}: {error})") from error
        if not isinstance(state, dict) or "settings" not in state:
            raise InputError(f"{self.last}: not a checkpoint written by robustmaps")
        return state

    def save_best(self, weights: "Mapping[str, Tensor]", description: Mapping[str, str]) -> None:
        """Write weights as safetensors, atomically."""
        from robustmaps.training._weights import save_weights

        save_weights(self.best, weights, description)


def validation_score(record: Mapping[str, Any]) -> tuple[float, float] | None:
    """The validation figures that select the best epoch, most important first; None without them."""
    clean = record.get("validation_clean_accuracy")
    return None if clean is None else (record.get("validation_robust_accuracy", clean), clean)


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

"""The run folder: all that is needed to resume, evaluate and report, written so that a crash loses nothing."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, write_json, write_text

# Long enough to outwait somebody who only looks whether the folder is held.
_LOCK_S = 0.5


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made when the first file is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def last(self) -> Path:
        """The newest checkpoint, with everything needed to go on."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The weights with the best validation figures."""
        return self.path / "best.safetensors"

    @property
    def config(self) -> Path:
        """The configuration, as the command line takes it."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One line of JSON per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """The folder of evaluations."""
        return self.path / "evaluation"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no two processes train in it; what a killed one left half written is removed.

        Raises:
            InputError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
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
        """Write metrics.jsonl anew, so that it never holds more epochs than the checkpoint."""
        write_text(self.metrics, "".join(json.dumps(record, allow_nan=False) + "\n" for record in history))

    def read_history(self) -> list[dict[str, Any]]:
        """The epochs recorded so far."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Record what the run runs on."""
        write_json(self.path / "environment.json", dict(environment))

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint atomically."""
        with atomic(self.last) as file:
            torch.save(dict(state), file)

    def load_last(self, device: torch.device) -> dict[str, Any]:
        """Read the checkpoint without unpickling code.

        Raises:
            InputError: the file is damaged.
        """
        try:
            state = torch.load(self.last, map_location=device, weights_only=True)
        except Exception as error:  # torch.load raises many types for a damaged file
            raise InputError(f"{self.last}: can't be read as a checkpoint ({type(error).__name__}: {error})") from error
        if not isinstance(state, dict) or "settings" not in state:
            raise InputError(f"{self.last}: not a checkpoint written by robustmaps")
        return state

    def save_best(self, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
        """Write weights as safetensors, atomically."""
        save_weights(self.best, weights, description)


def save_weights(path: str | Path, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, atomically, with a description in the file's header."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with atomic(path) as file:
        file.write(_in_order(safetensors.torch.save(plain, metadata=dict(description))))


def _in_order(data: bytes) -> bytes:
    """The same file with its description sorted: it comes in random order, and files are known by their hash."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as the format has it, so that tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_weights` wrote: weights on the CPU, and the description.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: can't be read as safetensors ({error})") from error

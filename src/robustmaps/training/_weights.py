"""Weights as safetensors files, which are written atomically and read without running code."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic


def save_weights(path: str | Path, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, atomically, with a description in the file's header."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with atomic(path) as file:
        file.write(_in_order(safetensors.torch.save(plain, metadata=dict(description))))


def _in_order(data: bytes) -> bytes:
    """Sort the file's description, whose order is random, since files are identified by their hash."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # required by the format to align tensors
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file written by `save_weights`: weights on the CPU, and the description.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: can't be read as safetensors ({error})") from error

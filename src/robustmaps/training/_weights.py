"""Weights as safetensors files, which are written atomically and read without running code."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class LoadedWeights:
    """What was read from a weights file.

    Attributes:
        tensors: the weights, on the CPU.
        description: the description in the header.
        sha256: hash of the bytes that were read, even if the file is replaced meanwhile.
    """

    tensors: dict[str, Tensor]
    description: dict[str, str]
    sha256: str


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file written by `save_weights`: weights on the CPU, and the description.

    Raises:
        InputError: the file is missing or damaged.
    """
    loaded = load_hashed_weights(path)
    return loaded.tensors, loaded.description


def load_hashed_weights(path: str | Path) -> LoadedWeights:
    """As `load_weights`, with the hash of the same bytes.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        data = Path(path).read_bytes()
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return LoadedWeights(tensors, dict(header.get("__metadata__", {})), hashlib.sha256(data).hexdigest())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: can't be read as safetensors ({error})") from error

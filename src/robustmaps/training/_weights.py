"""Weights as safetensors files, which are written atomically and read without running code."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic


def copied_state(model: nn.Module) -> dict[str, Any]:
    """A copy of a network's state dict, which may hold more than tensors; see `torch.nn.Module.get_extra_state`."""
    state = model.state_dict()
    return {k: v.detach().clone() if isinstance(v, Tensor) else copy.deepcopy(v) for k, v in state.items()}


def check_writable(model: nn.Module) -> None:
    """Refuse a network whose state can't be written as safetensors.

    Raises:
        InputError: an entry of its state dict is not a tensor.
    """
    _check_tensors(model.state_dict())


def _check_tensors(weights: Mapping[str, object]) -> None:
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name} is {type(value).__name__}: weights files hold only tensors, so that reading them runs no "
                "code; return a tensor from get_extra_state"
            )


def save_weights(path: str | Path, weights: Mapping[str, Tensor], description: Mapping[str, str]) -> None:
    """Write a state dict as safetensors, atomically, with a description in the file's header.

    Raises:
        InputError: an entry is not a tensor.
    """
    _check_tensors(weights)
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

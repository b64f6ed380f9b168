"""Weights as safetensors files, which are written atomically and checked, and read without running code."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from robustmaps.engine.checked import CHECKSUM, checksum, compare_checksums, take_checksum
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic
from robustmaps.engine.reading.binary import read_whole
from robustmaps.engine.reading.plain import loads

DESCRIPTION = "robustmaps"
"""The key of a weights file's header under which the network and its data are described."""
ENLARGED = "enlarged_by_robustmaps"
"""An empty tensor in the weights of enlarged networks, which no network has: PyTorch then refuses to load them into the
plain network, in which the same names and shapes compute something else."""
_ABOUT = "__metadata__"
_MEND = (
    "restore it from a copy or make it again (a run's weights: delete the file and resume the run); if it was changed "
    f"on purpose, remove {CHECKSUM!r} from its header"
)


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file.

    Attributes:
        tensors: the weights by name, on the CPU.
        description: the texts in the header, without the checksum.
        sha256: the SHA-256 of the bytes that were read, in hexadecimal.
    """

    tensors: dict[str, Tensor]
    description: dict[str, str]
    sha256: str


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
    """Write a state dict as safetensors, atomically, with a description and a checksum in the file's header.

    Those of an enlarged network get the tensor `ENLARGED`, so that nobody takes them for the plain network's.

    Raises:
        InputError: an entry is not a tensor.
    """
    _check_tensors(weights)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    if enlargements(description):
        plain[ENLARGED] = torch.empty(0)
    with atomic(path) as file:
        file.write(_checked(safetensors.torch.save(plain, metadata=dict(description))))


def enlargements(description: Mapping[str, str]) -> list[Any]:
    """What was changed on the network that a header describes, as `networks.OpenedNetwork.describe` has it."""
    try:
        found = loads(description.get(DESCRIPTION, "{}")).get("enlarge", [])
    except (ValueError, AttributeError):  # nothing that this package wrote
        return []
    return found if isinstance(found, list) else []


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a weights file: weights on the CPU, and the description.

    Files of earlier versions and of others have no checksum, and are read as they are.

    Raises:
        InputError: the file is missing or damaged.
    """
    tensors, description, _ = _read(Path(path))
    return tensors, description


def read_weights(path: str | Path) -> Weights:
    """As `load_weights`, with the hash of the same bytes: the file is read once.

    Raises:
        InputError: the file is missing or damaged.
    """
    tensors, description, data = _read(Path(path))
    return Weights(tensors, description, hashlib.sha256(data).hexdigest())


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], bytes]:
    data = read_whole(path, "a weights file")
    try:
        tensors = safetensors.torch.load(data)  # checks the header's offsets, too
        header, contents = _parts(data)
    except Exception as error:  # the library raises many types for types and shapes that it does not know
        raise InputError(f"{path}: can't be read as safetensors ({error})") from error
    tensors.pop(ENLARGED, None)
    description = header.pop(_ABOUT, None) or {}
    written = take_checksum(description)
    if written is not None:
        compare_checksums(path, _checksum(header, description, contents), written, _MEND)
    return tensors, description, data


def _checked(data: bytes) -> bytes:
    """Add the checksum, and sort the description, whose order is random, since files are identified by their hash."""
    header, contents = _parts(data)
    description = dict(sorted(header.pop(_ABOUT).items()))
    about = {**description, CHECKSUM: _checksum(header, description, contents)}
    text = json.dumps({_ABOUT: about, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # required by the format to align tensors
    return len(text).to_bytes(8, "little") + text + contents


def _parts(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header, and the bytes of the tensors."""
    start = 8 + int.from_bytes(data[:8], "little")
    return loads(data[8:start]), memoryview(data)[start:]


def _checksum(header: Mapping[str, Any], description: Mapping[str, str], contents: memoryview) -> str:
    """The checksum of the description and of each tensor's name, type, shape and bytes, in any order in the file."""
    parts: list[Any] = [json.dumps(sorted(description.items()))]
    for name, about in sorted(header.items()):
        begin, end = about["data_offsets"]
        parts += [json.dumps([name, about["dtype"], about["shape"]]), contents[begin:end]]
    return checksum(*parts)

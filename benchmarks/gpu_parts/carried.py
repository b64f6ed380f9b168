"""A checkpoint in pieces that are small enough to be carried away from a machine that is given back.

A run of ResNet-18 with averaged and best weights is 180 MB on disk. What is carried is about a fifth: weights in
float16, the averaged and the best ones as differences from them in eight bits, and no momentum, which ten steps bring
back. Going on from it is therefore not the same run to the bit, as it is from the checkpoint itself.
"""

import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PIECE_BYTES = 15 * 2**20
_LEVELS = 127

Weights = Mapping[str, Tensor]


def write(checkpoint: Path, folder: Path, run: str) -> dict[str, Any]:
    """Write the pieces of a ``last.pt`` and return what `read` needs; pieces of before are removed afterwards."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    small = dict(state)
    base = {name: _half(value) for name, value in state["model"].items()}
    small["model"] = base
    for name in ("average", "best_weights"):
        if state[name]:
            small[name] = {key: _difference(value, base[key]) for key, value in state[name].items()}
    # Schedules set the rate anew in every step, and momentum is forgotten within ten.
    small["optimizer"] = {**state["optimizer"], "state": {}}
    buffer = io.BytesIO()
    torch.save(small, buffer)
    packed = zlib.compress(buffer.getvalue(), 1)
    digest = hashlib.sha256(packed).hexdigest()
    names = [f"checkpoint-{digest[:8]}-{i}.part" for i in range(-(-len(packed) // PIECE_BYTES))]
    before = set(folder.glob("checkpoint-*.part"))
    for i, name in enumerate(names):
        (folder / name).write_bytes(packed[i * PIECE_BYTES : (i + 1) * PIECE_BYTES])
    for piece in before - {folder / name for name in names}:
        piece.unlink()
    return {"run": run, "pieces": names, "sha256": digest, "bytes": len(packed)}


def read(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint as ``last.pt`` holds it.

    Raises:
        ValueError: a piece is missing or damaged.
    """
    pieces = [folder / name for name in manifest["pieces"]]
    missing = [piece.name for piece in pieces if not piece.exists()]
    if missing:
        raise ValueError(f"{folder}: {', '.join(missing)} missing; the run {manifest['run']} begins anew")
    packed = b"".join(piece.read_bytes() for piece in pieces)
    if hashlib.sha256(packed).hexdigest() != manifest["sha256"]:
        raise ValueError(f"{folder}: the pieces of {manifest['run']} are damaged; the run begins anew")
    state: dict[str, Any] = torch.load(io.BytesIO(zlib.decompress(packed)), weights_only=True)
    base = state["model"]
    for name in ("average", "best_weights"):
        if state[name]:
            state[name] = {key: _restored(value, base[key]) for key, value in state[name].items()}
    state["model"] = {key: _full(value) for key, value in base.items()}
    return state


def _is_large(value: Tensor) -> bool:
    # Biases and statistics are few, and variances may leave float16's range.
    return value.dtype == torch.float32 and value.dim() > 1


def _half(value: Tensor) -> Tensor:
    return value.half() if _is_large(value) else value


def _full(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float16 else value


def _difference(value: Tensor, base: Tensor) -> dict[str, Tensor]:
    """The difference from the base in eight bits, with a scale for every output channel."""
    if not _is_large(value):
        return {"value": value}
    away = (value - base.float()).flatten(1)
    scale = away.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LEVELS
    return {"steps": (away / scale).round().to(torch.int8).reshape(value.shape), "scale": scale}


def _restored(value: Mapping[str, Tensor], base: Tensor) -> Tensor:
    if "value" in value:
        return value["value"]
    return base.float() + (value["steps"].flatten(1).float() * value["scale"]).reshape(base.shape)

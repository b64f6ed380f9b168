"""What can be chosen by name for a network, and nothing that needs PyTorch: the command line reads it."""

from typing import Literal, get_args

UpsampleMode = Literal["nearest", "bilinear", "bicubic", "area"]
"""Interpolation of images. ``area`` averages the pixels that a new pixel covers: by a whole factor as ``nearest``,
by others, such as 1.5, without its uneven pixels."""
Smooth = Literal["average", "blur"]
"""How a map that was computed at a smaller stride is averaged down to the size it had; see `enlarging.enlarge`."""
SMOOTHED: dict[Smooth, str] = {"average": "averaged", "blur": "blurred"}
Activation = Literal["silu"]
"""What takes the place of ReLU; see `enlarging.enlarge`."""
ACTIVATIONS: dict[Activation, str] = {"silu": "SiLU"}
UPSAMPLE_MODES: tuple[UpsampleMode, ...] = get_args(UpsampleMode)

Pool = Literal["avg", "max"]
"""What a built-in network takes over its last map."""
POOLS: tuple[Pool, ...] = get_args(Pool)


def align_corners(mode: str) -> bool | None:
    """The argument of that name that PyTorch's interpolation expects for a mode."""
    return False if mode in ("bilinear", "bicubic") else None

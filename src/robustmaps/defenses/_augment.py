"""Strong augmentation of a whole batch at once, on its device."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.engine.ranks.sharing import by_image

# The ranges of TrivialAugment's "wide" space that keep small images recognisable (arXiv 2103.10158, table 5).
_ROTATION = math.radians(30)
_SHEAR = 0.3
_TRANSLATION = 0.33
_ENHANCEMENT = 0.9
_FEWEST_BITS, _MOST_BITS = 2, 8


def strongly_augmented(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Change each image by one random operation of random strength, as TrivialAugment (arXiv 2103.10158, algorithm 1).

    Rotation, shears, translations (filled with black), brightness, contrast, colour, sharpness, solarisation,
    posterisation, stretched contrast, or none.

    Args:
        x: images (N, C, H, W) in [0, 1].
        generator: on the device of the images.

    Returns:
        Images of the same shape in [0, 1].
    """
    n = len(x)
    kinds, each = len(_GEOMETRY) + len(_COLOUR) + 1, x[:, 0, 0, 0]
    choice = by_image(
        each, lambda whole: torch.randint(0, kinds, whole.shape, generator=generator, device=x.device), generator
    )
    drawn = by_image(each, lambda whole: torch.rand(whole.shape, generator=generator, device=x.device), generator)
    strength = 2 * drawn - 1
    moves = torch.eye(2, 3, device=x.device).repeat(n, 1, 1)
    for index, matrix in enumerate(_GEOMETRY):
        moves = torch.where((choice == index)[:, None, None], matrix(strength), moves)
    result = F.grid_sample(x, F.affine_grid(moves, list(x.shape), align_corners=False), align_corners=False)
    # Even sampling at the original positions rounds, so unmoved images are copied.
    result = torch.where(_each(choice < len(_GEOMETRY)), result, x)
    for index, colour in enumerate(_COLOUR, len(_GEOMETRY)):
        result = torch.where(_each(choice == index), colour(x, strength), result)
    return result.clamp(0.0, 1.0)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b, c], 1), torch.stack([d, e, f], 1)], 1)


def _rotation(strength: Tensor) -> Tensor:
    angle, zero = _ROTATION * strength, torch.zeros_like(strength)
    return _matrix(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)


def _one_entry(row: int, column: int, size: float) -> Callable[[Tensor], Tensor]:
    def matrix(strength: Tensor) -> Tensor:
        moves = torch.eye(2, 3, device=strength.device).repeat(len(strength), 1, 1)
        moves[:, row, column] = size * strength
        return moves

    return matrix


_GEOMETRY: tuple[Callable[[Tensor], Tensor], ...] = (
    _rotation,
    _one_entry(0, 1, _SHEAR),
    _one_entry(1, 0, _SHEAR),
    # The grid spans two units.
    _one_entry(0, 2, 2 * _TRANSLATION),
    _one_entry(1, 2, 2 * _TRANSLATION),
)


def _blend(x: Tensor, towards: Tensor, strength: Tensor) -> Tensor:
    return towards + (x - towards) * _each(1 + _ENHANCEMENT * strength)


def _brightness(x: Tensor, strength: Tensor) -> Tensor:
    return x * _each(1 + _ENHANCEMENT * strength)


def _contrast(x: Tensor, strength: Tensor) -> Tensor:
    return _blend(x, x.mean((1, 2, 3), keepdim=True), strength)


def _colour(x: Tensor, strength: Tensor) -> Tensor:
    return _blend(x, x.mean(1, keepdim=True), strength)


def _sharpness(x: Tensor, strength: Tensor) -> Tensor:
    return _blend(x, F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1), strength)


def _solarised(x: Tensor, strength: Tensor) -> Tensor:
    return torch.where(x >= _each(1 - strength.abs()), 1 - x, x)


def _posterised(x: Tensor, strength: Tensor) -> Tensor:
    bits = (_MOST_BITS - (_MOST_BITS - _FEWEST_BITS) * strength.abs()).round()
    levels = _each(2**bits)
    return ((x * levels).floor().clamp(max=levels - 1) / (levels - 1)).clamp(0.0, 1.0)


def _stretched(x: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG001
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


_COLOUR: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _brightness,
    _contrast,
    _colour,
    _sharpness,
    _solarised,
    _posterised,
    _stretched,
)

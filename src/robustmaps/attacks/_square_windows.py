"""The sizes, positions and shapes of Square attack's windows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Queries, of 10,000, after which the windows' area is halved (arXiv 1912.00049, section 3.1); scaled for other budgets.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Proposal:
    """One proposal, the same for every sample.

    Attributes:
        size_px: side of the windows.
        first: rows and columns of the window that changes.
        second: rows and columns of the window that gives up its share of the norm, for l2 and l1.
        signs: signs of the change per channel, (C,).
        upright: whether the window's shape is transposed, for l2 and l1.
    """

    size_px: int
    first: tuple[slice, slice]
    second: tuple[slice, slice]
    signs: Tensor
    upright: bool


def windows(
    count: int, shape: torch.Size, p_init: float, least_px: int, odd: bool, generator: torch.Generator
) -> Iterator[Proposal]:
    """The windows of a search of ``count`` proposals over images (N, C, H, W), all drawn before the first."""
    _, channels, height, width = shape
    device = generator.device
    places = torch.rand(count, 4, generator=generator, device=device, dtype=torch.float64).tolist()
    signs = torch.randint(2, (count, channels), generator=generator, device=device) * 2.0 - 1.0
    upright = torch.randint(2, (count,), generator=generator, device=device).tolist()
    for query, (row, column, other_row, other_column) in enumerate(places):
        size = _side_px(query * 10_000 // count, p_init * height * width, least_px, odd=odd)
        size = min(size, height, width)

        def span(place: float, length: int, size: int = size) -> slice:
            start = int(place * (length - size + 1))
            return slice(start, start + size)

        yield Proposal(
            size,
            (span(row, height), span(column, width)),
            (span(other_row, height), span(other_column, width)),
            signs[query],
            bool(upright[query]),
        )


def bump(size_px: int, order: float) -> Tensor:
    """Two adjacent pyramids of opposite sign, with norm 1 in l1 or l2, shape (size, size) (section 3.3)."""
    half = size_px // 2
    shape = torch.cat([_pyramid(half, size_px, order), -_pyramid(size_px - half, size_px, order)])
    length: Tensor = torch.linalg.vector_norm(shape, ord=order)
    return shape / length


def tiles(signs: Tensor, shape: torch.Size, order: float) -> Tensor:
    """A grid of bumps over images (N, C, H, W), with signs (N, C, rows, columns)."""
    height, width = shape[2:]
    size = tile_px(height, width)
    pattern = bump(size, order).to(signs).repeat(signs.shape[2:])
    grid = signs.repeat_interleave(size, 2).repeat_interleave(size, 3) * pattern
    top, left = (height - grid.shape[2]) // 2, (width - grid.shape[3]) // 2
    return F.pad(grid, (left, width - grid.shape[3] - left, top, height - grid.shape[2] - top))


def tile_px(height: int, width: int) -> int:
    """The side of the first bumps: a fifth of the image's shorter side."""
    return max(min(height, width) // 5, 1)


def _side_px(progress: int, area: float, least_px: int, *, odd: bool) -> int:
    halvings = sum(progress > bound for bound in _HALVINGS)
    side = max(round(math.sqrt(area / 2**halvings)), least_px)
    return side + 1 if odd and side % 2 == 0 else side


def _pyramid(height: int, width: int, order: float) -> Tensor:
    """Nested squares around the centre, the k-th of height 1 / k^2."""
    row, column = height // 2, width // 2
    rings = torch.maximum((torch.arange(height) - row).abs()[:, None], (torch.arange(width) - column).abs()[None])
    count = max(row, column) + 1
    heights = (1.0 / torch.arange(1.0, count + 1) ** 2).flip(0).cumsum(0).flip(0)
    shape = heights[rings]
    return shape / torch.linalg.vector_norm(shape, ord=order) if height else shape

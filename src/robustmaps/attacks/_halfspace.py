"""The nearest point of a hyperplane within [0, 1], in l_inf, l2 and l1: the step from which FAB is made."""

import torch
from torch import Tensor

_TINY = 1e-12

# Newton's method on a concave, piecewise linear function ends exactly, on images in two to five rounds.
_ROUNDS = 30


def to_hyperplane(x: Tensor, normal: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The shortest perturbation in ``norm`` that changes ``<normal, x>`` by ``gap`` and keeps ``x`` within [0, 1].

    Where the box does not hold the hyperplane, the corner nearest to it is where the perturbation leads
    (arXiv 1907.02044, section 2.2).

    Args:
        x: images (N, C, H, W) in [0, 1].
        normal: the hyperplane's normals (N, C, H, W).
        gap: how much the scalar product has to change, of either sign, (N,).
        norm: ``linf``, ``l2`` or ``l1``.
    """
    direction = (normal * gap.sign()[:, None, None, None]).sign().flatten(1)
    room = torch.where(direction > 0, 1 - x.flatten(1), x.flatten(1))
    slope = normal.flatten(1).abs()
    if norm == "l1":
        length = _fill_steepest(slope, room, gap.abs())
    else:
        rate = torch.ones_like(slope) if norm == "linf" else slope
        length = _move_together(slope, rate, room, gap.abs())
    return (direction * length).view_as(x)


def _move_together(slope: Tensor, rate: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Entries move at their rates until the box stops them: ``min(t * rate, room)``, with the ``t`` closing the gap.

    What is gained, ``sum(slope * min(t * rate, room))``, is concave in ``t``, so Newton's method from zero never
    overshoots and each round fixes more entries to the box, until none is left to fix.
    """
    gain = slope * rate
    time = (gap / gain.sum(1).clamp(min=_TINY))[:, None]
    for _ in range(_ROUNDS):
        free = time * rate < room
        missing = gap - (slope * room).masked_fill(free, 0.0).sum(1)
        later = (missing / gain.masked_fill(~free, 0.0).sum(1).clamp(min=_TINY))[:, None]
        if not bool((later > time * (1 + 1e-6)).any()):
            break
        time = torch.maximum(time, later)
    return torch.minimum(time * rate, room)


def _fill_steepest(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Entries go to the box's edge in falling order of slope, the last one as far as is needed."""
    slope, order = slope.sort(dim=1, descending=True)
    room = room.gather(1, order)
    gained = slope * room
    missing = (gap[:, None] - (gained.cumsum(1) - gained)).clamp(min=0.0)
    length = torch.minimum(missing / slope.clamp(min=_TINY), room)
    return torch.zeros_like(length).scatter(1, order, length)

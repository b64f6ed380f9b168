"""The nearest point of a hyperplane within [0, 1], in l_inf, l2 and l1: the step from which FAB is made."""

import torch
from torch import Tensor

_TINY = 1e-12

# Newton's method on a concave, piecewise linear function ends exactly, on images in two to five rounds.
_ROUNDS = 30

# What may be left of a gap, relative to it: the precision of a sum in float32.
_CLOSED = 1e-5


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
    flat = x.flatten(1)
    room = torch.where(direction > 0, 1 - flat, flat)
    slope = normal.flatten(1).abs()
    if norm == "linf":
        length = _move_together(slope, room, gap.abs())
    elif norm == "l2":
        # An entry moves as fast as it is steep, and stops the sooner.
        length = slope * _move_together(slope.square(), room / slope.clamp(min=_TINY), gap.abs())
    else:
        length = _fill_steepest(slope, room, gap.abs())
    return (direction * length).view_as(x)


def _move_together(gain: Tensor, stop: Tensor, gap: Tensor) -> Tensor:
    """For how long each entry moves, when all set out together until the box stops them or the gap is closed.

    What is gained by a time, ``sum(gain * min(time, stop))``, is concave: Newton from zero never overshoots, and
    each round moves the time past some stops, until none lies between it and the end.
    """
    time = torch.zeros_like(gap)[:, None]
    reached = torch.zeros_like(gap)
    for _ in range(_ROUNDS):
        speed = _dot(gain, (stop > time).to(gain.dtype))
        step = ((gap - reached) / speed.clamp(min=_TINY))[:, None]
        time = time + torch.where(speed[:, None] > 0, step.clamp(min=0.0), 0.0)
        length = torch.minimum(stop, time)
        reached = _dot(gain, length)
        if not bool(((gap - reached > _CLOSED * gap) & (speed > 0)).any()):
            break
    return length


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products row by row, (R,), without the product in memory."""
    return torch.bmm(a[:, None], b[:, :, None])[:, 0, 0]


def _fill_steepest(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Entries go to the box's edge in falling order of slope, the last one as far as is needed."""
    slope, order = slope.sort(dim=1, descending=True)
    room = room.gather(1, order)
    gained = slope * room
    missing = (gap[:, None] - (gained.cumsum(1) - gained)).clamp(min=0.0)
    length = torch.minimum(missing / slope.clamp(min=_TINY), room)
    return torch.zeros_like(length).scatter(1, order, length)

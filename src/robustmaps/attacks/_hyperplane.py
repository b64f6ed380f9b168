"""The nearest point of a hyperplane within [0, 1], in l_inf, l2 and l1: the step of FAB."""

import torch
from torch import Tensor

_TINY = 1e-12
_HUGE = 1e12

# Newton's method is exact on a concave, piecewise linear function; images take two to five rounds.
_ROUNDS = 30

# Relative gap that may remain: the precision of a float32 sum.
_CLOSED = 1e-5


def to_hyperplane(x: Tensor, normal: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The shortest perturbation in ``norm`` that changes ``<normal, x>`` by ``gap`` and keeps ``x`` within [0, 1].

    If the hyperplane does not meet the box, the perturbation leads to the nearest corner (arXiv 1907.02044,
    section 2.2).

    Args:
        x: images (N, C, H, W) in [0, 1].
        normal: the hyperplanes' normals (N, C, H, W).
        gap: required change of the scalar product, of either sign, (N,).
        norm: ``linf``, ``l2`` or ``l1``.
    """
    # Squares of huge slopes would overflow; the hyperplane stays the same.
    largest = normal.flatten(1).abs().amax(1)
    smaller = torch.where(largest > _HUGE, 1 / largest, 1.0)
    normal, gap = normal * smaller[:, None, None, None], gap * smaller
    direction = (normal * gap.sign()[:, None, None, None]).sign().flatten(1)
    flat = x.flatten(1)
    room = torch.where(direction > 0, 1 - flat, flat)
    slope = normal.flatten(1).abs()
    if norm == "linf":
        length = _move_together(slope, room, gap.abs())
    elif norm == "l2":
        # An entry moves in proportion to its slope, and stops correspondingly earlier.
        length = slope * _move_together(slope.square(), room / slope.clamp(min=_TINY), gap.abs())
    else:
        length = _fill_steepest(slope, room, gap.abs())
    return (direction * length).view_as(x)


def _move_together(gain: Tensor, stop: Tensor, gap: Tensor) -> Tensor:
    """How long each entry moves if all start together and stop at the box or when the gap is closed.

    The gain ``sum(gain * min(time, stop))`` is concave in time: Newton's method from zero never overshoots, and each
    round passes some stops until none is left before the end.
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
    """Scalar products of rows, (R,), without storing elementwise products."""
    return torch.bmm(a[:, None], b[:, :, None])[:, 0, 0]


def _fill_steepest(slope: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Move entries to the box's edge, steepest first, and the last one only as far as needed."""
    slope, order = slope.sort(dim=1, descending=True)
    room = room.gather(1, order)
    gained = slope * room
    missing = (gap[:, None] - (gained.cumsum(1) - gained)).clamp(min=0.0)
    length = torch.minimum(missing / slope.clamp(min=_TINY), room)
    return torch.zeros_like(length).scatter(1, order, length)

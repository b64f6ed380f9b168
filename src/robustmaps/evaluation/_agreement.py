"""Whether two records of what a network computes are of the same network. No PyTorch here."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Computed = tuple[float, ...] | str
"""Values that follow from a network's logits and gradients on fixed images; the hash of its code where these can't be
repeated."""


class _Part(NamedTuple):
    """Consecutive values of a record, and how much they may differ, relative to the largest of them."""

    end: int
    tolerance: float


# Logits of four images, of one with many pixels at 0 and 1, and two gradients; earlier versions kept only the first.
# Machines and numbers of threads differ by about 1e-5 in logits, changes that matter by far more. In gradients they
# differ by more at kinks, and another backward pass, such as a straight-through one, by nearly everything.
_PARTS = (_Part(32, 1e-3), _Part(40, 1e-3), _Part(56, 0.05))


def agree(a: Sequence[float] | str, b: Sequence[float] | str) -> bool:
    """Whether both are of the same network, up to rounding; a part that only one of them has is not compared.

    >>> agree((1.0, -2.0), (1.0, -2.0001)), agree((1.0, -2.0), (1.0, -2.01)), agree("code 1", (1.0, -2.0))
    (True, False, False)
    """
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    start = 0
    for end, tolerance in _PARTS:
        one, other = a[start:end], b[start:end]
        if start and not (one and other):
            return True
        largest = max(map(abs, (*one, *other)), default=0.0)
        if len(one) != len(other) or any(
            not math.isclose(u, v, rel_tol=0.0, abs_tol=tolerance * largest) for u, v in zip(one, other, strict=True)
        ):
            return False
        start = end
    return True


def read_computed(value: object) -> Computed | None:
    """The value as read from JSON; None if it is missing.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise TypeError(f"computes={value!r}: expected numbers or a text")
    return tuple(float(each) for each in value)

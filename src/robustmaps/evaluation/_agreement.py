"""Whether two records of what a network computes are of the same network. No PyTorch here."""

from collections.abc import Sequence

Computed = tuple[float, ...] | str
"""Values that follow from a network's logits on fixed images; the hash of its code where these can't be repeated."""

# Relative to the largest value. Machines and numbers of threads differ by about 1e-5, changes that matter by far more.
_TOLERANCE = 1e-3


def agree(a: Sequence[float] | str, b: Sequence[float] | str) -> bool:
    """Whether both are of the same network, up to rounding.

    >>> agree((1.0, -2.0), (1.0, -2.0001)), agree((1.0, -2.0), (1.0, -2.01)), agree("code 1", (1.0, -2.0))
    (True, False, False)
    """
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    largest = max(map(abs, (*a, *b)), default=0.0)
    return len(a) == len(b) and all(abs(one - other) <= _TOLERANCE * largest for one, other in zip(a, b, strict=True))


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

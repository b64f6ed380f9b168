"""Strides: the downsampling steps of a network, in order from the input."""

from collections.abc import Sequence
from typing import Self

from robustmaps.engine.errors import InputError


class Strides(tuple[int, ...]):
    """The stride of each downsampling step, 1 to 9: a tuple that prints as on the command line.

    >>> str(Strides((1, 1, 2, 2)))
    '1122'
    """

    def __str__(self) -> str:
        return "".join(map(str, self))

    @classmethod
    def parse(cls, value: "StridesLike | None", *, default: "Strides", network: str, steps: str) -> Self:
        """Parse the strides that replace a network's default ones.

        Args:
            value: digits (``"1122"``, or ``1122`` from YAML), a sequence of integers, or None for the default.
            default: the network's own strides, which set the expected length.
            network: the network's name, for the error.
            steps: the steps that the digits apply to, for the error, such as ``one per group``.

        Raises:
            InputError: the value is not one digit from 1 to 9 per step.
        """
        if value is None:
            return cls(default)
        try:
            strides = cls([_stride(item) for item in (str(value) if isinstance(value, str | int) else value)])
        except (TypeError, ValueError):
            strides = cls()
        if len(strides) != len(default):
            example = cls((1, *default[:-1]) if default[0] != 1 else (1, 1, *default[2:]))
            raise InputError(
                f"strides={value!r} for {network}: expected {len(default)} digits from 1 to 9, {steps}, "
                f"such as '{default}' (default) or '{example}'"
            )
        return strides


def _stride(item: object) -> int:
    digit = str(item)
    if isinstance(item, bool) or digit not in tuple("123456789"):
        raise ValueError(digit)
    return int(digit)


StridesLike = str | int | Sequence[int]

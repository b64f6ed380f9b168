"""A figure with its uncertainty: Wilson's interval of a share and the bootstrap."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval.

    >>> print(Measured(0.0293, 0.0271, 0.0314))
    0.0293 [0.0271, 0.0314]
    >>> print(Measured.share(81, 263))
    30.8 % [25.5, 36.6]
    >>> print(Measured(0.0293, -math.inf, math.inf))
    0.0293

    Attributes:
        value: the figure.
        low, high: bounds of the interval; infinite where there is none, such as for a mean of one value.
        count: number of observations; None if they are not independent or not counted.
        percent: whether the figure is a share in [0, 1], which is printed in percent.
    """

    value: float
    low: float
    high: float
    count: int | None = None
    percent: bool = False

    @classmethod
    def share(cls, successes: int, total: int) -> "Measured":
        """A share of at least one independent sample, with Wilson's score interval (Wilson, JASA 1927)."""
        return replace(cls.wilson(successes / total, total), count=total)

    @classmethod
    def wilson(cls, value: float, total: float) -> "Measured":
        """A share with Wilson's score interval, for a size of the sample that need not be a whole number."""
        scale = 2 * (total + _Z95**2)
        middle = (2 * total * value + _Z95**2) / scale
        half = _Z95 / scale * math.sqrt(4 * total * value * (1 - value) + _Z95**2)
        return cls(value, middle - half if value else 0.0, middle + half if value < 1 else 1.0, percent=True)

    @classmethod
    def bootstrapped(
        cls, value: float, resampled: NDArray[np.float64], count: int | None = None, *, percent: bool = False
    ) -> "Measured":
        """A figure with the percentile interval of its bootstrap resamples."""
        low, high = np.quantile(resampled, [0.025, 0.975])
        return cls(value, float(low), float(high), count, percent)

    @property
    def interval(self) -> tuple[float, float]:
        """Both bounds."""
        return self.low, self.high

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def successes(self) -> int:
        """The number of samples that make up a share.

        Raises:
            TypeError: the figure is not a share of counted samples.
        """
        if self.count is None or not self.percent:
            raise TypeError(f"{self!r}: not a share of counted samples")
        return round(self.value * self.count)

    def scaled(self, factor: float) -> "Measured":
        """The same figure in another unit."""
        return Measured(factor * self.value, factor * self.low, factor * self.high, self.count)

    def __str__(self) -> str:
        if self.percent:
            bounds = f" [{100 * self.low:.1f}, {100 * self.high:.1f}]" * self.is_bounded
            return f"{100 * self.value:.1f} %{bounds}"
        return f"{self.value:.3g}" + f" [{self.low:.3g}, {self.high:.3g}]" * self.is_bounded

    def to_dict(self) -> dict[str, Any]:
        """Value, interval (None where there is none) and counts, ready for JSON."""
        values = {"value": self.value, "interval": [self.low, self.high] if self.is_bounded else None}
        if self.count is None:
            return values
        return values | ({"successes": self.successes, "total": self.count} if self.percent else {"count": self.count})


def told_apart(lines: Sequence[Mapping[float, Measured]]) -> bool:
    """Whether the bands around several lines can be told apart: no two overlap at more than half of their places.

    Args:
        lines: per line its figures by place.
    """
    for one, other in combinations(lines, 2):
        common = one.keys() & other.keys()
        overlapping = sum(one[x].low < other[x].high and other[x].low < one[x].high for x in common)
        if 2 * overlapping > len(common):
            return False
    return True


def bootstrap(
    figures: Callable[[NDArray[np.int64]], ArrayLike], count: int, times: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Figures of ``times`` resamples (times, ...), each from how often each of ``count`` observations was drawn."""
    drawn = (rng.integers(count, size=count) for _ in range(times))
    return np.array([figures(np.bincount(rows, minlength=count)) for rows in drawn], dtype=np.float64)

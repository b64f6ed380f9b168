"""A figure with its uncertainty: Wilson's interval of a share and the bootstrap."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval.

    >>> print(Measured(0.0293, 0.0271, 0.0314))
    0.0293 [0.0271, 0.0314]
    >>> print(Measured.share(81, 263))
    30.8 % [25.5, 36.6]

    Attributes:
        value: the figure.
        low, high: bounds of the interval; infinite where unbounded.
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
        value = successes / total
        scale = 2 * (total + _Z95**2)
        middle = (2 * total * value + _Z95**2) / scale
        half = _Z95 / scale * math.sqrt(4 * total * value * (1 - value) + _Z95**2)
        low = 0.0 if not successes else middle - half
        high = 1.0 if successes == total else middle + half
        return cls(value, low, high, total, percent=True)

    @property
    def interval(self) -> tuple[float, float]:
        """Both bounds."""
        return self.low, self.high

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
            return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def to_dict(self) -> dict[str, Any]:
        """Value, interval and counts, ready for JSON."""
        values = {"value": self.value, "interval": [self.low, self.high]}
        if self.count is None:
            return values
        return values | ({"successes": self.successes, "total": self.count} if self.percent else {"count": self.count})


def resamples(rng: np.random.Generator, count: int, times: int) -> Iterator[NDArray[np.int64]]:
    """Bootstrap resamples: ``times`` arrays of ``count`` indices, drawn with replacement."""
    for _ in range(times):
        yield rng.integers(count, size=count)


def percentiles(figures: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of a figure over bootstrap resamples."""
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)

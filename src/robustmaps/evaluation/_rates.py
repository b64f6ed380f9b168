"""Rates with their uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustmaps.engine.errors import InputError

_RESAMPLES = 2000


@dataclass(frozen=True)
class Rate:
    """A share of samples with its 95 % Wilson interval.

    >>> rate = Rate(81, 263)
    >>> print(rate)
    30.8 % [25.5, 36.6]

    Attributes:
        successes: samples that count.
        total: all samples, at least 1.
    """

    successes: int
    total: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.successes / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval (Wilson, JASA 1927), in [0, 1]."""
        from scipy import stats  # takes a second to import, which reading records does not need

        low, high = stats.binomtest(self.successes, self.total).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    def to_dict(self) -> dict[str, float | list[float]]:
        """For JSON: value, 95 % interval and counts."""
        return {
            "value": self.value,
            "interval": list(self.interval),
            "successes": self.successes,
            "total": self.total,
        }


def _interval(values: NDArray[np.int8], seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of (seeds, images).

    Seeds and images are both drawn with replacement, the images alike for all seeds, since all saw the same ones.
    """
    rng = np.random.default_rng(seed)
    seeds, images = values.shape
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        weights = np.bincount(rng.integers(images, size=images), minlength=images)
        means[i] = (values @ weights)[rng.integers(seeds, size=seeds)].mean() / images
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(gained: int, lost: int) -> float:
    """The exact McNemar test: were as many images gained as lost (McNemar, Psychometrika 1947)?"""
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


@dataclass(frozen=True)
class SeedRate:
    """The share of images that are right, over several seeds.

    Attributes:
        value: mean over seeds, in [0, 1].
        interval: 95 % percentile bootstrap interval, over images and, where there are several, over seeds.
        deviation: sample standard deviation over seeds; None for one seed.
        images: how many images.
        seeds: how many runs.
    """

    value: float
    interval: tuple[float, float]
    deviation: float | None
    images: int
    seeds: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    def to_dict(self) -> dict[str, float | list[float] | None]:
        """For JSON."""
        return {**vars(self), "interval": list(self.interval)}


def rate_over_seeds(verdicts: ArrayLike, *, seed: int = 0) -> SeedRate:
    """The mean over seeds of how many images are right, with its uncertainty.

    Args:
        verdicts: booleans (seeds, images).
        seed: of the bootstrap.

    Raises:
        InputError: there are no verdicts.
    """
    right = np.atleast_2d(np.asarray(verdicts, dtype=bool)).astype(np.int8)
    if right.size == 0:
        raise InputError("no verdicts: expected booleans of shape (seeds, images)")
    seeds, images = right.shape
    deviation = float(right.mean(1).std(ddof=1)) if seeds > 1 else None
    return SeedRate(float(right.mean()), _interval(right, seed), deviation, images, seeds)

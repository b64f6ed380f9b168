"""Rates over seeds, and McNemar's test."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured, bootstrap

_RESAMPLES = 2000
_ALPHA = 0.05


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's exact test of equal gains and losses (McNemar, Psychometrika 1947)."""
    from scipy import stats  # takes a second to import, and reading records does not need it

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def rate_over_seeds(verdicts: ArrayLike, *, seed: int = 0) -> Measured:
    """The mean accuracy over seeds, with its bootstrap interval.

    Seeds and images are both resampled, with the same images for all seeds, since all saw the same ones.

    Args:
        verdicts: booleans (seeds, images).
        seed: seed of the bootstrap.

    Raises:
        InputError: there are no verdicts.
    """
    right = np.atleast_2d(np.asarray(verdicts, dtype=bool)).astype(np.int8)
    if right.size == 0:
        raise InputError("no verdicts: expected booleans of shape (seeds, images)")
    rng = np.random.default_rng(seed)
    seeds, images = right.shape

    def mean(times_drawn: NDArray[np.int64]) -> float:
        return float((right @ times_drawn)[rng.integers(seeds, size=seeds)].mean() / images)

    return Measured.bootstrapped(float(right.mean()), bootstrap(mean, images, _RESAMPLES, rng), percent=True)


def over_seeds(values: ArrayLike) -> Measured:
    """The mean of a figure (seeds,) with Student's 95 % interval, infinite for a single seed.

    >>> over_seeds([0.50, 0.52, 0.54]).interval
    (0.470..., 0.569...)

    Raises:
        InputError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if not sample.size:
        raise InputError("no values: expected one per seed")
    mean, half = float(sample.mean()), np.inf
    if (deviation := deviation_over_seeds(sample)) is not None:
        from scipy import stats

        half = float(stats.t.ppf(1 - _ALPHA / 2, sample.size - 1)) * deviation / sample.size**0.5
    return Measured(mean, mean - half, mean + half, sample.size)


def deviation_over_seeds(values: ArrayLike) -> float | None:
    """The sample standard deviation of a figure (seeds,); None for fewer than two seeds."""
    sample = np.asarray(values, dtype=np.float64)
    return float(sample.std(ddof=1)) if sample.size > 1 else None

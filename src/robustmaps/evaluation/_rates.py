"""Rates over seeds, and McNemar's test."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured, bootstrap

_RESAMPLES = 2000
_ALPHA = 0.05


def at_least(count: int, total: int, share: float) -> float:
    """The probability that ``count`` or more of ``total`` happen if each does with probability ``share`` (binomial)."""
    from scipy.special import bdtrc  # scipy.stats would take a second to import

    return float(bdtrc(count - 1, total, share)) if count > 0 else 1.0


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's exact test of equal gains and losses (McNemar, Psychometrika 1947)."""
    from scipy.special import bdtr  # not above, since reading records does not need it

    # Both tails of the binomial distribution with probability 1/2, which is symmetric.
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else 1.0


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
    seeds, images = right.shape
    times_drawn, rows = _draws(seeds, images, seed)
    of_each_seed = (times_drawn @ right.T.astype(np.float32)).astype(np.int64)  # exact: sums are below 2**24
    means = np.take_along_axis(of_each_seed, rows, axis=1).mean(1) / images
    return Measured.bootstrapped(float(right.mean()), means, percent=True)


@lru_cache(maxsize=4)
def _draws(seeds: int, images: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """How often each image is drawn (resamples, images), and the seeds drawn (resamples, seeds).

    The same for all rates of one shape, of which a report has hundreds.
    """
    rng = np.random.default_rng(seed)
    rows = []

    def drawn(times_drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        rows.append(rng.integers(seeds, size=seeds))
        return times_drawn

    return bootstrap(drawn, images, _RESAMPLES, rng).astype(np.float32), np.stack(rows)


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
        from scipy.special import stdtrit  # quantiles of Student's distribution

        half = float(stdtrit(sample.size - 1, 1 - _ALPHA / 2)) * deviation / sample.size**0.5
    return Measured(mean, mean - half, mean + half, sample.size)


def deviation_over_seeds(values: ArrayLike) -> float | None:
    """The sample standard deviation of a figure (seeds,); None for fewer than two seeds."""
    sample = np.asarray(values, dtype=np.float64)
    return float(sample.std(ddof=1)) if sample.size > 1 else None

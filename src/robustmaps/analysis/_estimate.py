"""Means, medians and ratios over images or draws, with bootstrap intervals."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils._pytree import tree_map_only

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured

Statistic = Literal["mean", "median"]
_RESAMPLES = 1000


def estimate(values: ArrayLike, statistic: Statistic = "mean", *, seed: int = 0) -> Measured:
    """A mean or median of observations (N,) with its percentile bootstrap interval, empty for a single one.

    Raises:
        InputError: there are no observations.
    """
    sample = np.asarray(values, dtype=np.float64)
    return _bootstrap(sample[None], lambda rows: _of(statistic, rows[0]), seed)


def ratio(after: ArrayLike, before: ArrayLike, statistic: Statistic = "median", *, seed: int = 0) -> Measured:
    """The ratio of a statistic of paired observations (N,), after divided by before.

    Raises:
        InputError: there are no observations, or their numbers differ.
    """
    pair = np.broadcast_arrays(np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64))
    if np.shape(after) != np.shape(before):
        raise InputError(f"paired values of shapes {np.shape(after)} and {np.shape(before)}: expected equal shapes")
    return _bootstrap(np.stack(pair), lambda rows: _of(statistic, rows[0]) / _of(statistic, rows[1]), seed)


def finite_only(values: dict[str, Any]) -> dict[str, Any]:
    """The values for JSON, which has no NaN and no infinity: null in their place."""
    found: dict[str, Any] = tree_map_only(float, lambda value: value if math.isfinite(value) else None, values)
    return found


def _of(statistic: Statistic, values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (np.mean if statistic == "mean" else np.median)(values, axis=-1)
    return result


def _bootstrap(sample: NDArray[np.float64], statistic: Any, seed: int) -> Measured:
    """Resample observations (rows, N) with replacement, the same ones for all rows."""
    count = sample.shape[1]
    if not count:
        raise InputError("no values to estimate from: expected at least one")
    picks = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    with np.errstate(invalid="ignore"):  # margins may be infinite, and have no mean
        return Measured.bootstrapped(float(statistic(sample)), statistic(sample[:, picks]), count)

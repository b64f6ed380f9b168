"""Figures over images or draws, with an interval each."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustmaps.engine.errors import InputError

Statistic = Literal["mean", "median"]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean or median with its 95 % percentile bootstrap interval.

    >>> print(Estimate(0.0293, (0.0271, 0.0314), 20))
    0.0293 [0.0271, 0.0314]

    Attributes:
        value: of the sample.
        interval: over resamples; both ends are the value where there is one observation.
        count: observations.
    """

    value: float
    interval: tuple[float, float]
    count: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3g} [{low:.3g}, {high:.3g}]"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"value": self.value, "interval": list(self.interval), "count": self.count}


def estimate(values: ArrayLike, statistic: Statistic = "mean", *, seed: int = 0) -> Estimate:
    """A statistic of observations (N,).

    Raises:
        InputError: there are none.
    """
    sample = np.asarray(values, dtype=np.float64)
    return _bootstrap(sample[None], lambda rows: _of(statistic, rows[0]), seed)


def ratio(after: ArrayLike, before: ArrayLike, statistic: Statistic = "median", *, seed: int = 0) -> Estimate:
    """How a statistic of paired observations (N,) changes: the one after divided by the one before.

    Raises:
        InputError: there are none, or not as many of both.
    """
    pair = np.broadcast_arrays(np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64))
    if np.shape(after) != np.shape(before):
        raise InputError(f"paired values of shapes {np.shape(after)} and {np.shape(before)}: expected the same")
    return _bootstrap(np.stack(pair), lambda rows: _of(statistic, rows[0]) / _of(statistic, rows[1]), seed)


def _of(statistic: Statistic, values: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (np.mean if statistic == "mean" else np.median)(values, axis=-1)
    return result


def _bootstrap(sample: NDArray[np.float64], statistic: Any, seed: int) -> Estimate:
    """Observations (rows, N) are drawn with replacement, the same ones for all rows."""
    count = sample.shape[1]
    if not count:
        raise InputError("no values to estimate from: expected at least one")
    picks = np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))
    low, high = np.quantile(statistic(sample[:, picks]), [0.025, 0.975])
    return Estimate(float(statistic(sample)), (float(low), float(high)), count)

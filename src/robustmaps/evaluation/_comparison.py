"""Comparisons of configurations over the same seeds and test images, corrected for their number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured, bootstrap
from robustmaps.engine.numbers import counted
from robustmaps.evaluation._rates import mcnemar

_RESAMPLES = 2000
_ALPHA = 0.05


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979), in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Comparison:
    """How much better B is than A, with its uncertainty.

    The error of the difference is the larger of two, each with its own quantile: Student's over the seeds' mean
    differences, which accounts for few seeds, and that of a bootstrap over seeds and images, which accounts for the
    sampling of images. With one seed only the second applies, over images, and the p-value is at least that of
    McNemar's exact test.

    In simulations with 2, 3 and 5 seeds whose standard deviation is 3 to 5 points, these 95 % intervals covered the
    truth in 93 to 99 % of 150 studies each; the percentile bootstrap alone did in 85 to 89 %.

    Attributes:
        a, b: names of the configurations.
        value: rate of B minus rate of A, in [-1, 1].
        interval: 95 % interval, widened to the level at which Holm's correction tests this comparison.
        p_value: p-value of no difference, before the correction.
        corrected_p: p-value after the correction.
        mcnemar_p: exact McNemar tests of each pair of networks over the images, combined as twice their mean, which is
            valid under any dependence (Vovk and Wang, Biometrika 2020). It tests whether these networks differ, not
            whether other seeds would.
        family: number of comparisons in the correction.
        images: test images, the same for both.
        seeds: pairs of runs.
    """

    a: str
    b: str
    value: float
    interval: tuple[float, float]
    p_value: float
    corrected_p: float
    mcnemar_p: float
    family: int
    images: int
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the difference is significant at 5 % after the correction."""
        return self.corrected_p < _ALPHA

    @property
    def difference(self) -> Measured:
        """The value with its interval."""
        return Measured(self.value, *self.interval)

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.interval)
        return f"{100 * self.value:+.1f} points [{low:+.1f}, {high:+.1f}]"

    def flipped(self) -> "Comparison":
        """The same comparison with A and B swapped."""
        low, high = self.interval
        return Comparison(**{**vars(self), "a": self.b, "b": self.a, "value": -self.value, "interval": (-high, -low)})

    def sentence(self, quality: str = "robust") -> str:
        """The comparison in words, no stronger than the data."""
        one = self.flipped() if self.value < 0 else self
        low, high = (100 * bound for bound in one.interval)
        size = f"{counted(one.seeds, 'seed')} x {one.images:,} images"
        corrected = f", corrected for {one.family} comparisons" if one.family > 1 else ""
        extent = f"95 % interval {low:.1f} to {high:.1f}, {size}{corrected}"
        if one.seeds > 1 and low <= -100 and high >= 100:
            extent = f"{counted(one.seeds, 'seed')} are too few for an interval, {one.images:,} images each"
        text = f"{one.b} is {100 * one.value:.1f} points more {quality} than {one.a}"
        if not one.value:
            text = f"{one.a} and {one.b} are equally {quality}"
        elif not one.shown:
            text = f"{one.b} is {100 * one.value:.1f} points higher in {quality} accuracy than {one.a}, within chance"
        only = "; one pair of networks only, other seeds may differ" if one.seeds == 1 else ""
        return f"{text} ({extent}{only})"

    def as_sentence(self) -> str:
        """The same with a full stop."""
        return f"{self.sentence()}."

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "interval": list(self.interval), "shown": self.shown}


def compare_all(
    verdicts: Mapping[str, ArrayLike | Mapping[int, ArrayLike]],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare configurations over the same seeds and images, corrected for the number of comparisons.

    Args:
        verdicts: by name, booleans (seeds, images), or by seed booleans (images,); all in the same order of images.
        pairs: the pairs to compare, such as each with a baseline that was not chosen by its verdicts; None for all. A
            pair is compared over the seeds that both have, and omitted if there are none.
        seed: seed of the bootstrap.

    Raises:
        InputError: there are fewer than two configurations, a name is unknown, or the images differ.
    """
    right = {name: _by_seed(each) for name, each in verdicts.items()}
    shapes = sorted({row.shape for rows in right.values() for row in rows.values()})
    if len(right) < 2 or len(shapes) != 1 or shapes[0] == (0,):
        raise InputError(f"verdicts of shapes {shapes}: expected two or more configurations on the same images")
    wanted = list(combinations(right, 2)) if pairs is None else list(pairs)
    unknown = {name for pair in wanted for name in pair} - set(right)
    if unknown:
        raise InputError(f"pairs with {', '.join(sorted(unknown))}: expected names among {', '.join(right)}")
    shared = {pair: sorted(set(right[pair[0]]) & set(right[pair[1]])) for pair in wanted}
    made = [pair for pair in wanted if shared[pair]]
    resampled = _Resampled(right, seed)
    tests = []
    for a, b in made:
        gain = np.stack([right[b][s].astype(np.int8) - right[a][s] for s in shared[a, b]])
        tests.append(_Test(gain, resampled.difference(a, b, shared[a, b])))
    corrected = holm([test.p_value for test in tests])
    levels = _levels([test.p_value for test in tests])
    return tuple(
        Comparison(
            a,
            b,
            test.value,
            test.interval(level),
            test.p_value,
            p,
            min(1.0, 2 * float(np.mean(test.each_p))) if len(test.gain) > 1 else test.each_p[0],
            len(made),
            test.gain.shape[1],
            len(test.gain),
        )
        for (a, b), test, p, level in zip(made, tests, corrected, levels, strict=True)
    )


def _by_seed(verdicts: ArrayLike | Mapping[int, ArrayLike]) -> dict[int, NDArray[np.bool_]]:
    rows = verdicts if isinstance(verdicts, Mapping) else dict(enumerate(np.atleast_2d(np.asarray(verdicts))))
    return {number: np.asarray(row, dtype=bool) for number, row in rows.items()}


class _Resampled:
    """Rates under images drawn with replacement, the same for all configurations, since all saw the same images."""

    def __init__(self, right: Mapping[str, Mapping[int, NDArray[np.bool_]]], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._rows = {key: row for row, key in enumerate((name, s) for name, each in right.items() for s in each)}
        stacked = np.stack([row for each in right.values() for row in each.values()]).astype(np.float32)
        images = stacked.shape[1]
        self._rates = bootstrap(
            lambda drawn: stacked @ drawn.astype(np.float32) / images, images, _RESAMPLES, self._rng
        )

    def difference(self, a: str, b: str, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Mean differences (resamples,) over seeds drawn with replacement, the same for both."""
        first, second = (self._rates[:, [self._rows[name, s] for s in seeds]] for name in (a, b))
        drawn = self._rng.integers(len(seeds), size=(_RESAMPLES, len(seeds)))
        means: NDArray[np.float64] = np.take_along_axis(second - first, drawn, axis=1).mean(1)
        return means


class _Test:
    """One comparison before the correction: ``gain`` (seeds, images) in -1, 0, 1 and its resampled means."""

    def __init__(self, gain: NDArray[np.int8], means: NDArray[np.float64]) -> None:
        self.gain = gain
        self.value = float(gain.mean())
        self.each_p = [mcnemar(int((row > 0).sum()), int((row < 0).sum())) for row in gain]
        self._bootstrap_error = float(means.std(ddof=1))
        self._seed_error = float(gain.mean(1).std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        self.p_value = self._p_value()

    def _p_value(self) -> float:
        from scipy.special import ndtr, stdtr

        if not self.value:
            return 1.0
        # Without any spread over seeds, only the other error counts.
        p_values = [self.each_p[0] if len(self.gain) == 1 else 0.0]
        if self._seed_error:
            p_values.append(2 * float(stdtr(len(self.gain) - 1, -abs(self.value) / self._seed_error)))
        if self._bootstrap_error:
            p_values.append(2 * float(ndtr(-abs(self.value) / self._bootstrap_error)))
        return max(p_values)

    def interval(self, level: float) -> tuple[float, float]:
        from scipy.special import ndtri, stdtrit  # quantiles of the normal and of Student's distribution

        half = float(ndtri(1 - level / 2)) * self._bootstrap_error
        if len(self.gain) > 1:
            half = max(half, float(stdtrit(len(self.gain) - 1, 1 - level / 2)) * self._seed_error)
        elif self.each_p[0] >= level:
            half = max(half, abs(self.value))  # include 0 if McNemar's exact test finds no difference
        if not half:
            # No image differed in any resample; that does not rule out rare differences (Wilson).
            half = Measured.share(0, self.gain.shape[1]).high
        return max(-1.0, self.value - half), min(1.0, self.value + half)


def _levels(p_values: Sequence[float]) -> list[float]:
    """The level at which Holm's procedure tests each; after the first failure, the rest share its level."""
    levels = [0.0] * len(p_values)
    failed: float | None = None
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        level = _ALPHA / (len(p_values) - rank) if failed is None else failed
        levels[index] = level
        if p_values[index] >= level:
            failed = level
    return levels

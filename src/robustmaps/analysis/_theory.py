"""The theory laboratory: gain against map size for networks with random or given weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustmaps.analysis._estimate import estimate
from robustmaps.analysis._gain import first_order_gain, reached_gain
from robustmaps.analysis._theory_network import Pool, Toy, ToyNetwork, Weights, predicted_gain, random_weights
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.random import stream
from robustmaps.engine.tables import Table, table

POOLS: tuple[Pool, ...] = ("average", "max")
BASIC = "stride"
FLOOR = "below effective stride 1"
APART = "stride beyond the kernel"


@dataclass(frozen=True, eq=False)
class ToyGain:
    """The gain of one kind of network.

    Attributes:
        toy: the kind of network.
        draws: first-order gain of each draw, mean over its images.
        reached_draws: the same by projected gradient descent; None if not measured.
        predicted: the theory's prediction, if any.
    """

    toy: Toy
    draws: NDArray[np.float64]
    reached_draws: NDArray[np.float64] | None = None
    predicted: float | None = None

    @property
    def gain(self) -> Measured:
        """Mean over draws."""
        return estimate(self.draws)

    @property
    def reached(self) -> Measured | None:
        """Mean over draws."""
        return None if self.reached_draws is None else estimate(self.reached_draws)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.toy.to_dict(),
            "gain": self.gain.to_dict(),
            "reached": None if self.reached is None else self.reached.to_dict(),
            "predicted": self.predicted,
        }


@dataclass(frozen=True, eq=False)
class Series:
    """Networks that differ in the size of their last map, with the same weights and images.

    Attributes:
        name: the difference from the basic case.
        pool: the pool over the last map.
        points: the networks, smallest stride first.
    """

    name: str
    pool: Pool
    points: tuple[ToyGain, ...]

    @property
    def exponent(self) -> Measured:
        """The slope of log gain against log n."""
        return fit_exponent(self.points)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "pool": self.pool,
            "exponent": self.exponent.to_dict(),
            "points": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True)
class Laboratory:
    """The measurements of the laboratory.

    Attributes:
        series: one per variation and pool.
        draws: networks per point.
        images: images per network.
        seed: seed of all draws.
    """

    series: tuple[Series, ...]
    draws: int
    images: int
    seed: int

    def named(self, name: str, pool: Pool) -> Series:
        """The series of that name and pool."""
        return next(series for series in self.series if (series.name, series.pool) == (name, pool))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        measured = [series.to_dict() for series in self.series]
        return {"draws": self.draws, "images": self.images, "seed": self.seed, "series": measured}

    def exponents(self) -> Table:
        """A table of the exponents for both pools."""
        rows = []
        for name in dict.fromkeys(series.name for series in self.series):
            cells = {series.pool: _signed(series.exponent) for series in self.series if series.name == name}
            rows.append((name, *(cells.get(pool, "-") for pool in POOLS)))
        return table(("gain ~ n^a: a [95 %]", *POOLS), rows, words=1)


def measure(
    toy: Toy,
    *,
    draws: int = 20,
    images: int = 2,
    steps: int = 0,
    seed: int = 0,
    given: Sequence[tuple[Weights, Tensor]] = (),
) -> ToyGain:
    """The perturbation gain of one kind of network.

    A draw's weights and images depend only on the seed and the draw's number, so kinds that differ in stride,
    upsampling or pool share them. Random images are in [1/4, 3/4], out of reach of the bounds 0 and 1.

    Args:
        toy: the kind of network.
        draws: number of networks.
        images: images per network.
        steps: steps of projected gradient descent; 0 skips it.
        seed: seed of the draws.
        given: weights and images (N, C, H, W) to use instead of random ones.
    """
    check_whole("draws", draws, 1)
    check_whole("images", images, 1)
    first, reached = [], []
    for weights, x in given or (_drawn(toy, images, seed, number) for number in range(draws)):
        network = ToyNetwork(toy, weights)
        budget: dict[str, Any] = {"eps": toy.eps, "norm": toy.norm}
        first.append(float(first_order_gain(network, x, **budget).mean()))
        if steps:
            reached.append(float(reached_gain(network, x, **budget, steps=steps).mean()))
    predicted = None if given else predicted_gain(toy)
    return ToyGain(toy, np.array(first), np.array(reached) if steps else None, predicted)


def _drawn(toy: Toy, images: int, seed: int, number: int) -> tuple[Weights, Tensor]:
    shape = (images, toy.in_channels, toy.image_px, toy.image_px)
    x = 0.25 + 0.5 * torch.rand(shape, generator=stream(seed, "images", number))
    return random_weights(toy, stream(seed, "weights", number)), x


def fit_exponent(points: Sequence[ToyGain]) -> Measured:
    """The slope of log gain against log n, by least squares in each draw, with its interval over draws.

    Raises:
        InputError: there are fewer than two sizes, or the numbers of draws differ.
    """
    sizes = np.log([point.toy.positions for point in points])
    if len(set(sizes)) < 2 or len({len(point.draws) for point in points}) > 1:
        raise InputError(
            "points: expected maps of at least two sizes, with the same draws for each, to fit an exponent"
        )
    centred = sizes - sizes.mean()
    logs = np.log(np.stack([point.draws for point in points]))
    slopes = centred @ logs / (centred @ centred)
    return estimate(slopes)


@dataclass(frozen=True, eq=False)
class Variation:
    """The definition of one series.

    Attributes:
        name: the difference from the basic case.
        toys: kinds of network that differ in the size of their last map.
        given: weights of each draw and images (N, C, H, W) in [0, 1], to use instead of random ones.
    """

    name: str
    toys: tuple[Toy, ...]
    given: tuple[tuple[Weights, Tensor], ...] = ()


def standard_variations(pool: Pool) -> tuple[Variation, ...]:
    """Variations of stride, upsampling, its mode, kernel, depth and budget from the basic case.

    Except in one series, strides are at most the kernel's width, since windows that skip pixels follow another law.
    With upsampling they start at its factor, where the effective stride is 1.
    """
    basic = Toy(pool=pool)

    def strided(name: str, toy: Toy, *strides: int) -> Variation:
        return Variation(name, tuple(replace(toy, stride=stride) for stride in strides))

    return (
        strided(BASIC, basic, 1, 2, 4),
        strided("kernel 3", replace(basic, kernel=3), 1, 2),
        strided("kernel 7", replace(basic, kernel=7), 1, 2, 4),
        strided("2 layers, kernel 3", replace(basic, depth=2, kernel=3), 1, 2, 4),
        strided("4 layers, kernel 3", replace(basic, depth=4, kernel=3), 1, 2, 4, 8),
        strided("l_2", replace(basic, norm="l2"), 1, 2, 4),
        strided("upsampled 2, nearest", replace(basic, upsample=2), 2, 4),
        strided("upsampled 2, bilinear", replace(basic, upsample=2, upsample_mode="bilinear"), 2, 4),
        strided("upsampled 2, bicubic", replace(basic, upsample=2, upsample_mode="bicubic"), 2, 4),
        strided("upsampled 4, kernel 9", replace(basic, upsample=4, kernel=9), 4, 8),
        strided(APART, basic, 8, 16),
        Variation(FLOOR, (basic, replace(basic, upsample=2), replace(basic, upsample=4))),
    )


def laboratory(
    variations: Sequence[Variation] | None = None,
    *,
    draws: int = 20,
    images: int = 2,
    steps: int = 20,
    seed: int = 0,
    watcher: Watcher = ignore,
) -> Laboratory:
    """Measure variations of the theory's networks.

    Args:
        variations: the variations to measure; None for the standard ones with both pools.
        draws: networks per point.
        images: images per network.
        steps: steps of projected gradient descent in the basic case; 0 skips it.
        seed: seed of all draws.
        watcher: receives progress reports.
    """
    if variations is None:
        variations = [variation for pool in POOLS for variation in standard_variations(pool)]
    series = []
    for done, variation in enumerate(variations):
        points = [
            measure(
                toy,
                draws=draws,
                images=images,
                steps=steps if variation.name == BASIC else 0,
                seed=seed,
                given=variation.given,
            )
            for toy in variation.toys
        ]
        series.append(Series(variation.name, variation.toys[0].pool, tuple(points)))
        watcher(Progress("theory", done + 1, len(variations), "series"))
    return Laboratory(tuple(series), draws, images, seed)


def _signed(value: Measured) -> str:
    low, high = value.interval
    return f"{value.value:+.2f} [{low:+.2f}, {high:+.2f}]"

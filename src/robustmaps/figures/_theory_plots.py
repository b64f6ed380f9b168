"""The figure of the theory laboratory."""

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustmaps.analysis import BASIC, POOLS, Laboratory, Series
from robustmaps.figures._plots import _COLOURS, _STYLE, save_figure

_MARKS = {"average": ("o", _COLOURS[0]), "max": ("s", _COLOURS[1])}
_LAWS = {"average": -0.5, "max": 0.0}


def plot_theory(path: str | Path, found: Laboratory) -> None:
    """Gain against map size in the basic case, and the fitted exponents of all series, with 95 % intervals.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        found: the measurements, with both pools of each series.
    """
    names = list(dict.fromkeys(series.name for series in found.series))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, max(3.6, 0.32 * len(names) + 1.6)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        for pool in POOLS:
            _against_size(left, found.named(BASIC, pool))
        left.set(xscale="log", yscale="log", xlabel="pixels of the pooled map, n", ylabel="perturbation gain")
        sizes = sorted({point.toy.positions for point in found.named(BASIC, "average").points})
        left.set_xticks(sizes, [f"{math.isqrt(size)}x{math.isqrt(size)}\n= {size}" for size in sizes])
        left.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
        left.minorticks_off()
        left.set_title("one layer, strides 4, 2, 1")
        left.legend(fontsize=8)
        _exponents(right, found, names)
        figure.suptitle(
            f"Perturbation gain of small networks, eps 8/255; means over {found.draws} draws, 95 % intervals",
            fontsize=10,
        )
        save_figure(figure, path)


def _against_size(axes: Axes, series: Series) -> None:
    mark, colour = _MARKS[series.pool]
    sizes = [point.toy.positions for point in series.points]
    values = np.array([point.gain.value for point in series.points])
    bounds = np.abs(np.array([point.gain.interval for point in series.points]).T - values)
    axes.errorbar(sizes, values, bounds, fmt=mark, color=colour, capsize=3, label=f"{series.pool} pooling, first order")
    reached = [point.reached for point in series.points]
    if all(value is not None for value in reached):
        axes.plot(
            sizes,
            [value.value for value in reached if value is not None],
            mark,
            color=colour,
            fillstyle="none",
            markersize=9,
            label=f"{series.pool} pooling, PGD",
        )
    law = _LAWS[series.pool]
    at = np.array([min(sizes), max(sizes)], dtype=float)
    middle = np.exp(np.log(values).mean())
    line = middle * (at / np.exp(np.log(sizes).mean())) ** law
    axes.plot(at, line, ":", color=colour, label="n^(-1/2)" if law else "constant")


def _exponents(axes: Axes, found: Laboratory, names: list[str]) -> None:
    for pool in POOLS:
        mark, colour = _MARKS[pool]
        axes.axvline(_LAWS[pool], color=colour, linewidth=1, linestyle=":")
        rows = [
            (-row, series.exponent)
            for row, name in enumerate(names)
            for series in found.series
            if (series.name, series.pool) == (name, pool)
        ]
        values = np.array([exponent.value for _, exponent in rows])
        bounds = np.abs(np.array([exponent.interval for _, exponent in rows]).T - values)
        axes.errorbar(values, [row for row, _ in rows], xerr=bounds, fmt=mark, color=colour, capsize=3, label=pool)
    axes.set_yticks([-row for row in range(len(names))], names)
    axes.set(xlabel="fitted exponent a of gain ~ n^a", title="exponents (dotted: the laws)", xlim=(-0.75, 0.5))
    axes.legend(fontsize=8, loc="lower left")

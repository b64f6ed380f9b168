"""Figures of studies: accuracy along an axis, and features in the plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustmaps.engine.measured import Measured, told_apart
from robustmaps.engine.text import visible
from robustmaps.figures._plots import _COLOURS, _STYLE, save_figure

# Okabe and Ito's other colours; a plot of more lines changes their style as well.
_ALL_COLOURS = (*_COLOURS, "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", ":")
_FEW = 3
"""The number of lines with bars at their points, where their bands can't be told apart."""


def plot_lines(
    path: str | Path,
    lines: Mapping[str, Sequence[tuple[float, Measured]]],
    label: str,
    title: str,
    ticks: Mapping[float, str] | None = None,
) -> None:
    """Accuracy along an axis, a line each, with 95 % intervals as far as they can be told apart.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        lines: by name, points in ascending order with their shares.
        label: the axis' label.
        title: the title.
        ticks: where the axis is labelled, and with what; at every point where None.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        bands = told_apart([dict(points) for points in lines.values()])
        bars = not bands and len(lines) <= _FEW
        for number, (name, points) in enumerate(lines.items()):
            at = [x for x, _ in points]
            rates = 100 * np.array([rate.value for _, rate in points])
            low, high = 100 * np.array([rate.interval for _, rate in points]).T
            style = _LINES[number // len(_ALL_COLOURS) % len(_LINES)]
            colour = _ALL_COLOURS[number % len(_ALL_COLOURS)]
            axes.plot(at, rates, style, marker="o", color=colour, label=visible(name))
            if bands:
                axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
            elif bars:
                axes.errorbar(at, rates, [rates - low, high - rates], fmt="none", color=colour, capsize=3, alpha=0.6)
        shown = ticks or {x: f"{x:g}" for x in sorted({x for points in lines.values() for x, _ in points})}
        axes.set_xticks(list(shown), list(shown.values()))
        axes.set(xlabel=label, ylabel="accuracy (%)", title=visible(title), ylim=(0, 100))
        about = f"{'bands' if bands else 'bars'}: 95 % intervals" if bands or bars else None
        axes.legend(fontsize=8, title=about, title_fontsize=8)
        save_figure(figure, path)


Points = NDArray[np.float64]


def plot_planes(
    path: str | Path,
    planes: Mapping[str, Mapping[str, Points]],
    labels: Mapping[str, NDArray[np.int64]],
    classes: Mapping[int, str],
    title: str,
) -> None:
    """Features of images, a row per network and a column per projection, before (dots) and after an attack (crosses).

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        planes: by network and projection, points (2, N, 2), clean and attacked.
        labels: by network the true classes (N,).
        classes: names of the classes by label.
        title: the title.
    """
    columns = list(next(iter(planes.values())))
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.2 * len(columns) + 1.2, 3.4 * len(planes) + 0.9), layout="constrained")
        grid = figure.subplots(len(planes), len(columns), squeeze=False)
        for row, (name, projections) in zip(grid, planes.items(), strict=True):
            for axes, (how, points) in zip(row, projections.items(), strict=True):
                _draw_points(axes, points, labels[name], classes)
                axes.set_title(visible(how), fontsize=9)
            row[0].set_ylabel(visible(name), fontsize=9)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", fontsize=8, title="true class")
        figure.suptitle(f"{visible(title)}\ndots: clean images; crosses: the same images under attack", fontsize=10)
        save_figure(figure, path)


def _draw_points(axes: Axes, points: Points, labels: NDArray[np.int64], classes: Mapping[int, str]) -> None:
    clean, attacked = points
    for number, (label, name) in enumerate(classes.items()):
        of, colour = labels == label, _ALL_COLOURS[number % len(_ALL_COLOURS)]
        axes.scatter(clean[of, 0], clean[of, 1], s=16, color=colour, alpha=0.75, linewidths=0, label=visible(name))
        axes.scatter(attacked[of, 0], attacked[of, 1], s=20, color=colour, marker="x", linewidths=0.9)
    axes.set(xticks=[], yticks=[])

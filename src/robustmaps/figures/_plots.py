"""Plots as files, with titles, units and legends: PNG, or PDF and SVG by the ending of the name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustmaps.data import Dataset
from robustmaps.engine.files import atomic
from robustmaps.engine.measured import Measured, told_apart
from robustmaps.engine.numbers import as_fraction, norm_text
from robustmaps.engine.text import visible
from robustmaps.engine.writing.outputs import SOFTWARE, claim, is_picture

# Okabe and Ito's colours, which are distinct for people with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "text.parse_math": False,  # names may have dollar signs
    "axes.edgecolor": "0.45",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
}
_OF_IMAGES = {
    **_STYLE,
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top", "bottom")), True),
    "axes.grid": False,
    "axes.edgecolor": "0.8",
    "axes.linewidth": 0.5,
}
"""Images end at a thin grey line, which is no part of them."""
# By which `is_picture` recognises them; without a date, which would make each file another one.
_BY_WHOM: dict[str, dict[str, str | None]] = {
    "png": {"Software": SOFTWARE},
    "pdf": {"Creator": SOFTWARE, "CreationDate": None},
    "svg": {"Creator": SOFTWARE, "Date": None},
}


def plot_curves(path: str | Path, histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], title: str) -> None:
    """Validation accuracy over epochs, clean (dashed) and robust (solid): means over seeds.

    Bands span the seeds where they can be told apart; elsewhere each seed is a thin line.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        histories: the histories of each variant's runs.
        title: the title.
    """
    kinds = (("validation_clean_accuracy", "--", "clean"), ("validation_robust_accuracy", "-", "robust"))
    drawn = {
        (name, label): (style, colour, _by_epoch(runs, key))
        for colour, (name, runs) in zip(_COLOURS, histories.items(), strict=False)
        for key, style, label in kinds
    }
    bands = told_apart([_spans(seeds) for _, _, seeds in drawn.values() if seeds])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for (name, label), (style, colour, seeds) in drawn.items():
            if not seeds:
                continue
            epochs, values = list(seeds), 100 * np.array(list(seeds.values()))
            axes.plot(epochs, values.mean(1), style, color=colour, label=f"{visible(name)}, {label}")
            if bands:
                axes.fill_between(epochs, values.min(1), values.max(1), color=colour, alpha=0.12, linewidth=0)
            elif values.shape[1] > 1:
                axes.plot(epochs, values, style, color=colour, alpha=0.3, linewidth=0.8)
        several = any(len(runs) > 1 for runs in histories.values())
        about = f"{'bands' if bands else 'thin lines'}: seeds" if several else None
        axes.set(xlabel="epoch", ylabel="validation accuracy (%)", title=title, ylim=(0, 100))
        axes.legend(loc="lower right", title=about, title_fontsize=9)
        save_figure(figure, path)


def _by_epoch(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> dict[float, list[float]]:
    """By epoch the shares of all runs; empty where one of them has none."""
    found = [{float(record["epoch"]): record[key] for record in run if key in record} for run in runs]
    return {epoch: [run[epoch] for run in found] for epoch in found[0]} if found and all(found) else {}


def _spans(seeds: Mapping[float, Sequence[float]]) -> dict[float, Measured]:
    return {epoch: Measured(float(np.mean(each)), min(each), max(each)) for epoch, each in seeds.items()}


def plot_eps_curve(path: str | Path, points: Sequence[tuple[float, Measured]], norm: str, title: str) -> None:
    """Robust accuracy against the radius, with 95 % intervals.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        points: radii in ascending order and their rates; radius 0 is clean accuracy.
        norm: the norm of the radius.
        title: the title.
    """
    radii = [eps for eps, _ in points]
    rates = 100 * np.array([rate.value for _, rate in points])
    low, high = 100 * np.array([rate.interval for _, rate in points]).T
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(radii, low, high, color=_COLOURS[0], alpha=0.15, linewidth=0, label="95 % interval")
        axes.plot(radii, rates, "o-", color=_COLOURS[0], label="accuracy under attack")
        axes.set_xticks(radii, [as_fraction(eps) for eps in radii])
        axes.set(xlabel=f"eps ({norm_text(norm)}, images in [0, 1])", ylabel="accuracy (%)", title=title, ylim=(0, 100))
        axes.legend(loc="upper right")
        save_figure(figure, path)


@dataclass(frozen=True)
class AttackedImage:
    """One image under attack.

    Attributes:
        clean: (C, H, W) in [0, 1].
        attacked: the same shape.
        predictions: class names before and after.
        truth: the true class.
    """

    clean: NDArray[np.float32]
    attacked: NDArray[np.float32]
    predictions: tuple[str, str]
    truth: str


def plot_attacked(path: str | Path, rows: Mapping[str, Sequence[AttackedImage]], eps: float, title: str) -> None:
    """The same images attacked on several networks: once clean, then for each network the perturbation and its result.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        rows: for each network the same images, which all of them classify correctly when clean.
        eps: the budget; perturbations are grey for no change and white for ``+eps``.
        title: the title.
    """
    first = next(iter(rows.values()))
    with mpl.rc_context(_OF_IMAGES):
        figure = Figure(figsize=(1.15 * len(first) + 2.2, 1.32 * (1 + 2 * len(rows)) + 0.9), layout="constrained")
        grid = figure.subplots(1 + 2 * len(rows), len(first), squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
        for axes, image in zip(grid[0], first, strict=True):
            _show(axes, image.clean)
            axes.set_title(visible(image.truth), fontsize=8, pad=2)
        grid[0, 0].set_ylabel("clean", fontsize=8)
        for number, (name, images) in enumerate(rows.items()):
            changes, results = grid[1 + 2 * number], grid[2 + 2 * number]
            changes[0].set_ylabel("perturbation", fontsize=8)
            results[0].set_ylabel(f"{visible(name)}\nattacked", fontsize=8)
            for change, result, image in zip(changes, results, images, strict=True):
                _show(change, 0.5 + (image.attacked - image.clean) / (2 * eps))
                _show(result, image.attacked)
                _name_guess(result, image.predictions[1], image.truth)
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(-eps, eps), "gray")
        bar = figure.colorbar(scale, ax=list(grid[1:, -1]), ticks=[-eps, 0, eps], fraction=0.3, aspect=30)
        bar.ax.set_yticklabels([f"-{as_fraction(eps)}", "0", f"+{as_fraction(eps)}"], fontsize=8)
        bar.set_label("perturbation", fontsize=8)
        bar.outline.set_visible(False)
        figure.suptitle(visible(title), fontsize=10)
        save_figure(figure, path)


def _show(axes: Axes, picture: NDArray[np.float32]) -> None:
    axes.imshow(_as_picture(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def plot_samples(path: str | Path, data: Dataset, per_class: int = 8, classes: int = 10) -> None:
    """Some test images of the first classes, one row per class."""
    names = data.classes[:classes]
    with mpl.rc_context(_OF_IMAGES):
        figure = Figure(figsize=(0.8 * per_class + 1.5, 0.85 * len(names) + 0.5), layout="constrained")
        grid = figure.subplots(len(names), per_class, squeeze=False)
        for label, name in enumerate(names):
            rows = (data.test.labels == label).nonzero()[:per_class, 0]
            pictures = data.test.subset(rows).tensors()[0].numpy()
            for column, axes in enumerate(grid[label]):
                axes.set(xticks=[], yticks=[])
                if column < len(pictures):
                    axes.imshow(_as_picture(pictures[column]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            grid[label, 0].set_ylabel(visible(name), rotation=0, ha="right", va="center", fontsize=9)
        figure.suptitle(visible(f"{data.name}: test images"), fontsize=10)
        save_figure(figure, path)


def _name_guess(axes: Axes, guess: str, truth: str) -> None:
    mark, colour = ("✓", "#006644") if guess == truth else ("✗", "#B00020")
    axes.set_title(visible(f"{guess} {mark}"), fontsize=8, color=colour, pad=2)


def _as_picture(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image[0].clip(0, 1) if len(image) == 1 else image.transpose(1, 2, 0).clip(0, 1)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, or as PDF or SVG where its name ends so; the same figure gives the same file.

    A PDF embeds its fonts as TrueType; in an SVG letters are shapes, which look alike everywhere.

    Raises:
        InputError: the path exists and is not a figure of this package.
    """
    claim(path, ours=is_picture)
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in _BY_WHOM:
        form = "png"
    with atomic(path) as file, mpl.rc_context({"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": SOFTWARE}):
        figure.savefig(file, format=form, dpi=150, metadata=_BY_WHOM[form])

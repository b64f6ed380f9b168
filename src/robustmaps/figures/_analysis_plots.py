"""Plots of analyses: gains along a network's depth, its maps under attack, and plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustmaps.analysis import Analysis, estimate, short_names
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import by
from robustmaps.engine.text import visible
from robustmaps.enlarging import Option, Plan
from robustmaps.figures._labels import Box, place_labels
from robustmaps.figures._plots import _COLOURS, _OF_IMAGES, _STYLE, AttackedImage, _as_picture, _name_guess, save_figure
from robustmaps.models import ACTIVATIONS

Maps = NDArray[np.float32]


def plot_gains(path: str | Path, analyses: Mapping[str, Analysis], title: str) -> None:
    """The gain of the pooled features along the network's depth and of the margin, with 95 % intervals.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        analyses: the analysis of each variant of a network.
        title: the title.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[2.4, 1])
        for offset, (colour, (name, analysis)) in enumerate(zip(_COLOURS, analyses.items(), strict=False)):
            _along_depth(left, analysis, colour, name)
            _of_margin(right, analysis, colour, offset - (len(analyses) - 1) / 2)
        first = next(iter(analyses.values()))
        unit = "spread of the features over images" if first.images > 1 else "gain"
        left.set(xlabel="stage, from the image to the last map", ylabel=f"gain of the pooled features\n({unit})")
        left.set_xticks(range(len(first.stages)), _ticks(analyses), fontsize=8)
        left.set_ylim(bottom=0)
        left.legend(fontsize=8, handlelength=3.5)
        kinds = ["first order"] + [f"PGD-{first.steps}"] * bool(first.steps)
        right.axhline(1, color="0.4", linewidth=1, linestyle=":")
        right.set(ylabel="gain / margin, of images classified right", xlim=(-0.6, len(kinds) - 0.4))
        right.set_xticks(range(len(kinds)), kinds)
        right.set_ylim(bottom=0)
        right.set_xlabel("dotted: the budget suffices", fontsize=8)
        figure.suptitle(title, fontsize=10)
        save_figure(figure, path)


def _along_depth(axes: Axes, analysis: Analysis, colour: str, name: str) -> None:
    gains = [report.gain for report in analysis.stages]
    for style, label, values in (
        ("-", "first order", [gain.relative or gain.first_order for gain in gains]),
        ("--", f"PGD-{analysis.steps}", [gain.relative_reached or gain.reached for gain in gains]),
    ):
        drawn = [(x, value) for x, value in enumerate(values) if value is not None]
        if drawn:
            at = [x for x, _ in drawn]
            _points(axes, at, [value for _, value in drawn], colour, style, f"{name}, {label}")


def _of_margin(axes: Axes, analysis: Analysis, colour: str, offset: float) -> None:
    margin = analysis.margin
    if not margin.right.any():
        return
    values = [estimate(margin.relative(), "median")]
    if margin.reached is not None:
        values.append(estimate(margin.relative(reached=True), "median"))
    _points(axes, [x + 0.2 * offset for x in range(len(values))], values, colour, "none", None)


def _points(
    axes: Axes, at: Sequence[float], values: Sequence[Measured], colour: str, style: str, label: str | None
) -> None:
    middle = np.array([value.value for value in values])
    bounds = np.abs(np.array([value.interval for value in values]).T - middle)
    axes.errorbar(at, middle, bounds, color=colour, linestyle=style, marker="o", markersize=4, capsize=3, label=label)


def _ticks(analyses: Mapping[str, Analysis]) -> list[str]:
    """The name and map sizes of each stage."""
    first, *others = analyses.values()
    texts = []
    for number, (name, report) in enumerate(zip(short_names(first), first.stages, strict=True)):
        sizes = ["x".join(map(str, report.stage.map_size))]
        for other in others:
            size = "x".join(map(str, other.stages[number].stage.map_size)) if number < len(other.stages) else ""
            if size not in ("", sizes[0]):
                sizes.append(size)
        texts.append("\n".join([name, " → ".join(sizes)]))
    return texts


@dataclass(frozen=True)
class AttackedMaps:
    """One image and a network's maps of it, before and after an attack.

    Attributes:
        image: the image.
        eps: the budget.
        stages: names of the stages.
        clean: the map (C, h, w) of each stage.
        attacked: the same for the attacked image.
    """

    image: AttackedImage
    eps: float
    stages: tuple[str, ...]
    clean: tuple[Maps, ...]
    attacked: tuple[Maps, ...]


def plot_maps(path: str | Path, networks: Mapping[str, AttackedMaps], title: str) -> None:
    """Three rows per network: the image and its maps, the same under attack, and the change.

    A map is shown as the root mean square over its channels. The clean and the attacked map share a brightness scale;
    the change has its own, with its size printed above.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        networks: the maps of each network, for the same image.
        title: the title.
    """
    columns = 1 + max(len(maps.stages) for maps in networks.values())
    kinds = ("clean", "attacked", "change")
    with mpl.rc_context(_OF_IMAGES):
        size = (1.75 * columns + 0.6, 1.95 * len(kinds) * len(networks) + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(kinds) * len(networks), columns, squeeze=False)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
        for block, (name, maps) in enumerate(networks.items()):
            rows = grid[len(kinds) * block : len(kinds) * (block + 1)]
            _draw_image(list(rows[:, 0]), maps)
            for column, stage in enumerate(maps.stages):
                _draw_stage(list(rows[:, column + 1]), stage, maps.clean[column], maps.attacked[column])
            for axes in rows[:, len(maps.stages) + 1 :].flat:
                axes.set_visible(False)
            for axes, kind in zip(rows[:, 0], kinds, strict=True):
                axes.set_ylabel(f"{name}\n{kind}" if len(networks) > 1 else kind, fontsize=9)
        figure.suptitle(
            f"{title}\nmaps: root mean square over channels; the change has its own scale, its size is in % of the map",
            fontsize=9,
        )
        save_figure(figure, path)


def plot_plan(path: str | Path, plan: Plan, title: str, gain: str) -> None:
    """Cost against gain of all enlargements within a budget, with the size of the last map; the best are filled.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        plan: a plan with measured gains.
        title: the title.
        gain: the label of the gain's axis.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.subplots()
        known = [(option, option.gain) for option in plan.options if option.gain is not None]
        for option, gain_ in known:
            at, (low, high) = option.relative, option.interval or (gain_, gain_)
            fill = _COLOURS[0] if option.best else "none"
            axes.errorbar(at, gain_, [[gain_ - low], [high - gain_]], color=_COLOURS[0], alpha=0.5, capsize=3)
            axes.plot(at, gain_, "o", color=_COLOURS[0], markerfacecolor=fill)
        axes.set(xlabel=f"{plan.measure}, times the given network", ylabel=gain)
        axes.set_title(visible(title), fontsize=10, wrap=True)
        axes.plot([], [], "o", color=_COLOURS[0], label="no other has as small a gain at this cost")
        axes.plot([], [], "o", color=_COLOURS[0], markerfacecolor="none", label="another has")
        about = "bars: 95 % intervals" if any(o.interval for o, _ in known) else None
        axes.legend(fontsize=8, title=about, title_fontsize=8)
        axes.margins(x=0.15, y=0.15)
        _label(figure, axes, [(option.relative, gain_, _label_of(option)) for option, gain_ in known])
        save_figure(figure, path)


def _label(figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write labels beside points, none over another."""
    figure.draw_without_rendering()  # arranges the axes, which then stay where they are
    figure.set_layout_engine("none")
    height, size = figure.bbox.height, 7 * figure.dpi / 72
    pixels = [axes.transData.transform((x, y)) for x, y, _ in points]
    room = axes.bbox
    box = Box(room.x0, height - room.y1, room.x1, height - room.y0)
    wanted = [(x, height - y, 5.0, label) for (x, y), (*_, label) in zip(pixels, points, strict=True)]
    for placed, (x, y, _, label), point in zip(place_labels(wanted, box, size), wanted, points, strict=True):
        if placed is not None:
            offset = ((placed[0].left - x) * 72 / figure.dpi, (y - placed[0].top) * 72 / figure.dpi)
            axes.annotate(label, point[:2], offset, textcoords="offset points", fontsize=7, va="top")


def _label_of(option: Option) -> str:
    name = _option_name(option) or "as it is"
    return f"{name}\n{by(option.cost.map_size)}"


def _option_name(option: Option) -> str:
    parts = [f"×{option.upsample:g}"] * (option.upsample != 1)
    parts += [f"step{'s' * (len(option.where) > 1)} {'+'.join(map(str, option.where))}"] * bool(option.where)
    parts += [ACTIVATIONS[option.activation]] if option.activation else []
    return ", ".join(parts)


def _draw_image(rows: Sequence[Axes], maps: AttackedMaps) -> None:
    image = maps.image
    change = 0.5 + (image.attacked - image.clean) / (2 * maps.eps)
    for axes, picture in zip(rows, (image.clean, image.attacked, change), strict=True):
        axes.imshow(_as_picture(picture), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for axes, guess in zip(rows, image.predictions, strict=False):
        _name_guess(axes, guess, image.truth)
    rows[2].set_title("grey: none", fontsize=8, pad=2)


def _draw_stage(rows: Sequence[Axes], name: str, clean: Maps, attacked: Maps) -> None:
    change = attacked - clean
    pictures = [np.sqrt((values**2).mean(0)) for values in (clean, attacked, change)]
    brightest = max(float(picture.max()) for picture in pictures[:2])
    for axes, picture, top in zip(rows, pictures, (brightest, brightest, float(pictures[2].max())), strict=True):
        axes.imshow(picture, cmap="magma", vmin=0, vmax=top or 1.0, interpolation="nearest")
    size = "x".join(map(str, clean.shape[1:]))
    rows[0].set_title(f"{name}\n{size}x{len(clean)}", fontsize=8, pad=2)
    length = float(np.linalg.norm(clean))
    share = f"{100 * np.linalg.norm(change) / length:.3g} %" if length else "-"
    rows[2].set_title(share, fontsize=8, pad=2)

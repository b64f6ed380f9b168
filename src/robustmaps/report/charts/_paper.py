"""Draw a plot for a paper: on white, as wide as a column, in small type."""

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import StrMethodFormatter

from robustmaps.engine.text import visible
from robustmaps.figures import Box, place_labels, text_width, wrapped
from robustmaps.report.charts._plot import GOOD, MUTED, Dash, Key, Mark, Plot, Series

COLUMN_IN = 3.25
"""The width of a column of most two-column papers, in inches."""
TINTS = {
    **{str(n): c for n, c in enumerate(("#0072b2", "#d55e00", "#009170", "#b8548f", "#8a7000", "#3f8fc9", "#7a4fb5"))},
    "7": "#7a7f87",
    GOOD: "#00704f",
    MUTED: "#59616b",
}
"""The colours of the page on white."""
NARROWEST_IN = 1.5
"""Less leaves no room for an axis."""
_TEXT_PT = 7.0
_PT = _TEXT_PT / 12
"""Of a pixel of the page, where a tick's label has 12."""
_DASHES: dict[Dash, Any] = {"solid": "-", "dash": "--", "dot": ":"}
_SHAPES = ("o", "s", "D", "^")
_HIGHEST_IN = 2.4
_ROW_IN = 0.24
_SHORT = 22
"""Letters of a name with which two fit side by side into the legend of a column."""
_STYLE: dict[Any, Any] = {
    "font.size": _TEXT_PT,
    "axes.labelsize": _TEXT_PT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": _TEXT_PT,
    "axes.axisbelow": True,
    "text.parse_math": False,  # names may have dollar signs
}


def draw_for_paper(plot: Plot, width_in: float = COLUMN_IN) -> Figure:
    """Draw what the page shows at first, without its title, which belongs into the paper's caption.

    Args:
        plot: the plot.
        width_in: the figure's width in inches, at least `NARROWEST_IN`.
    """
    legend = [key for key in plot.legend if key.on]
    names = {key.name for key in legend}
    shown = [series for series in plot.series if names.issuperset(_switches(series, plot))]
    columns = 2 if legend and max(len(key.name) for key in legend) <= _SHORT * width_in / COLUMN_IN else 1
    lines = -(-len(legend) // columns)
    rows = 0.55 + _ROW_IN * len(plot.y.names) if plot.y.names else min(0.72 * width_in, _HIGHEST_IN)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, rows + 0.15 * lines), layout="constrained")
        axes = figure.subplots()
        _set(axes, plot, width_in)
        for series in shown:
            _draw(axes, series)
        _limit(axes, plot)
        if legend:
            handles = [_handle(key) for key in legend]
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1, handlelength=2.2)
        figure.draw_without_rendering()  # settles where the axes are, once for all files
        figure.set_layout_engine("none")
        _label(figure, axes, shown)
    return figure


def _switches(series: Series, plot: Plot) -> set[str]:
    return {key.name for key in plot.legend if key.name in series.keys}


def _set(axes: Axes, plot: Plot, width_in: float) -> None:
    limit = 0.36 * width_in * 72
    for axis, of, other in ((plot.x, axes.xaxis, axes.axvline), (plot.y, axes.yaxis, axes.axhline)):
        of.set_label_text(visible(axis.title))
        if axis.names:
            shown = ["\n".join(wrapped(visible(name), limit, _TEXT_PT, 2)) for name in axis.names]
            of.set_ticks(range(len(shown)), shown)
            of.grid(visible=False)
        elif axis.ticks:
            of.set_ticks([place for place, _ in axis.ticks], [text for _, text in axis.ticks])
        elif axis.suffix.strip() and f"({axis.suffix.strip()})" not in axis.title:
            of.set_major_formatter(StrMethodFormatter(f"{{x:g}}{axis.suffix.replace('{', '{{').replace('}', '}}')}"))
        if axis.rule is not None:
            other(axis.rule, color=TINTS[MUTED], linewidth=0.8)
    texts = plot.x.names or [text for _, text in plot.x.ticks]
    if sum(text_width(visible(text), _TEXT_PT) + _TEXT_PT for text in texts) > 0.8 * width_in * 72:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _limit(axes: Axes, plot: Plot) -> None:
    """Set the ends that are given; the others stay where the marks and some room put them."""
    if plot.x.low is not None or plot.x.high is not None:
        axes.set_xlim(plot.x.low, plot.x.high)
    if plot.y.low is not None or plot.y.high is not None:
        axes.set_ylim(plot.y.low, plot.y.high)
    if plot.y.names:
        axes.invert_yaxis()


def _draw(axes: Axes, series: Series) -> None:
    colour, marks = TINTS[series.tint], series.marks
    points = [mark for mark in marks if mark.box is None]
    if series.line is not None:
        axes.plot(
            [mark.x for mark in marks], [mark.y for mark in marks], _DASHES[series.line], color=colour, linewidth=1.1
        )
    if series.band:
        known = [(mark.x, *mark.y_interval) for mark in marks if mark.y_interval is not None]
        at, low, high = ([place[n] for place in known] for n in range(3))
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    for mark in marks:
        if mark.box is not None:
            left, right, lower, upper = mark.box
            axes.add_patch(Rectangle((left, lower), right - left, upper - lower, facecolor=colour))
            axes.update_datalim([(left, lower), (right, upper)])
        if not series.band:
            _whiskers(axes, mark, colour if mark.box is None else "#1b1e22")
    if series.points:
        for mark in points:
            axes.plot(
                mark.x,
                mark.y,
                _SHAPES[series.shape % len(_SHAPES)],
                color=colour,
                markersize=max(2.0, 2 * _PT * mark.size_px * 0.8),
                markeredgecolor="white",
                markeredgewidth=0.4,
                clip_on=False,
                zorder=3,
            )


def _whiskers(axes: Axes, mark: Mark, colour: str) -> None:
    lines = []
    if mark.x_interval is not None:
        lines.append((mark.x_interval, (mark.y, mark.y), "|"))
    if mark.y_interval is not None:
        lines.append(((mark.x, mark.x), mark.y_interval, "_"))
    for x, y, cap in lines:
        axes.plot(x, y, color=colour, alpha=0.6, linewidth=0.7, marker=cap, markersize=3)


def _handle(key: Key) -> Line2D | Patch:
    colour, label = TINTS[key.tint], visible(key.name)
    if isinstance(key.look, int):
        return Line2D([], [], color=colour, marker=_SHAPES[key.look % len(_SHAPES)], linestyle="", label=label)
    if key.look == "box":
        return Patch(facecolor=colour, label=label)
    return Line2D([], [], color=colour, linestyle=_DASHES[key.look], linewidth=1.1, label=label)


def _label(figure: Figure, axes: Axes, shown: list[Series]) -> None:
    """Write labels beside points, none over another, where there is room."""
    marks = [mark for series in shown for mark in series.marks if mark.box is None]
    if not any(mark.label for mark in marks):
        return
    scale = 72 / figure.dpi / _PT
    edges, height = axes.get_window_extent(), figure.bbox.height

    def pixels(x: float, y: float) -> tuple[float, float]:
        return float(scale * x), float(scale * (height - y))

    left, top = pixels(edges.x0, edges.y1)
    right, bottom = pixels(edges.x1, edges.y0)
    wanted = [
        (*pixels(*axes.transData.transform((mark.x, mark.y))), 0.8 * mark.size_px, visible(mark.label))
        for mark in marks
    ]
    for placed, (x, y, _, text) in zip(place_labels(wanted, Box(left, top, right, bottom)), wanted, strict=True):
        if placed is not None:
            box, far = placed
            at = (box.left + 2 - x) * _PT, (y - box.bottom + 4) * _PT
            line = {"arrowstyle": "-", "color": TINTS[MUTED], "linewidth": 0.5} if far else None
            where_x, where_y = axes.transData.inverted().transform((x / scale, height - y / scale))
            halo = [withStroke(linewidth=1.5, foreground="white")]
            axes.annotate(
                text, (where_x, where_y), at, textcoords="offset points", arrowprops=line, path_effects=halo, zorder=4
            )

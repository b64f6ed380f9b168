"""Plots that compare accuracies."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustmaps.engine.measured import Measured, told_apart
from robustmaps.engine.numbers import as_fraction, norm_text
from robustmaps.engine.tables import Cell, percent_cell, points_cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._plot import (
    MUTED,
    Axis,
    Key,
    Mark,
    Plot,
    Series,
    Tints,
    interval_text,
    names_axis,
    percent_axis,
    tint,
    tints_of,
)

_LARGEST_PX, _SMALLEST_PX = 13.0, 4.0
_FEW = 10
"""The number of points that are labelled; the others have their names on hover."""
_FEW_LINES = 3
"""The number of lines with bars at their points, where their bands can't be told apart."""


@dataclass(frozen=True)
class TradeOff:
    """The accuracy, robustness and cost of a configuration.

    Attributes:
        name: name of the configuration.
        network, defense: what determines its colour and its shape; empty if all configurations share it.
        clean, robust: shares with 95 % intervals.
        flops: operations of a forward pass; None if unknown.
        cost: the same as readable text.
    """

    name: str
    network: str
    defense: str
    clean: Measured
    robust: Measured
    flops: float | None
    cost: str


def trade_off_chart(points: Sequence[TradeOff], attack: str, tints: Tints | None = None) -> Chart:
    """Clean against robust accuracy; the area of a point grows with the cost of the configuration."""
    groups = {part: list(dict.fromkeys(getattr(p, part) for p in points)) for part in ("network", "defense")}
    # A lone factor has both, so that it is seen without colours too.
    by_colour = "network" if len(groups["network"]) > 1 else "defense"
    by_shape = "defense" if len(groups["defense"]) > 1 else "network"
    several = len(groups[by_colour]) > 1
    tints = tints or tints_of(point.name for point in points)
    few = len(points) <= _FEW
    largest = max((point.flops or 0 for point in points), default=0) or 1
    series = []
    for point in points:
        colour = groups[by_colour].index(getattr(point, by_colour)) if several else tints[point.name]
        shape = groups[by_shape].index(getattr(point, by_shape))
        clean, robust = point.clean.scaled(100), point.robust.scaled(100)
        tip = f"{point.name}\nclean {interval_text(clean)}\nrobust {interval_text(robust)}\n{point.cost}"
        size = max(_SMALLEST_PX, _LARGEST_PX * ((point.flops or 0) / largest) ** 0.5)
        label = point.name if few else ""
        mark = Mark(clean.value, robust.value, clean.interval, robust.interval, None, tip, label, size)
        keys = tuple(key for key in (point.network, point.defense) if key)
        series.append(Series((mark,), tint(colour), keys, shape=shape))
    legend: list[Key] = []
    if several:
        both = by_shape == by_colour
        legend += [Key(name, tint(i), i) if both else Key(name, tint(i)) for i, name in enumerate(groups[by_colour])]
    if by_shape != by_colour and len(groups[by_shape]) > 1:
        legend += [Key(name, MUTED, number) for number, name in enumerate(groups[by_shape])]
    best = max(points, key=lambda point: point.robust.value)
    return Chart(
        name="trade-off",
        title="Clean against robust accuracy",
        alt=f"Scatter plot of {len(points)} configurations. Most robust: {best.name}, clean "
        f"{100 * best.clean.value:.1f} percent, robust {100 * best.robust.value:.1f} percent.",
        plot=Plot(
            Axis("clean accuracy (%)", suffix=" %"),
            Axis("robust accuracy (%)", suffix=" %"),
            tuple(series),
            tuple(legend),
        ),
        caption=f"Robust accuracy: {attack}. Up and to the right is better. Bars: 95 % intervals. Area of a point: "
        f"operations of a forward pass, the largest being {max(points, key=lambda p: p.flops or 0).cost}."
        + ("" if few else " Point at a mark for its name."),
        height_px=460,
    )


def differences_chart(rows: Sequence[tuple[str, str, Measured]], attack: str = "") -> Chart:
    """The difference in robust accuracy of each configuration to its reference.

    Args:
        rows: a configuration, its reference, and the difference.
        attack: the attack, the budget and the images, in words.
    """
    figures = [figure.scaled(100) for *_, figure in rows]
    named = [(name, other, points_cell(figure)) for name, other, figure in rows]
    marks = tuple(
        Mark(figure.value, place, figure.interval, tip=f"{name}\n{cell} points against {other}")
        for place, (figure, (name, other, cell)) in enumerate(zip(figures, named, strict=True))
    )
    title = "Gain in robust accuracy"
    about = ", ".join([title, *([attack] if attack else []), "paired by image and seed"])
    return Chart(
        name="differences",
        title=title,
        alt=f"{title}: " + "; ".join(f"{name} {cell.value:+.1f} points against {other}" for name, other, cell in named),
        plot=Plot(
            Axis("difference (points)", rule=0), names_axis([name for name, *_ in rows]), (Series(marks, tint(0)),)
        ),
        data=table(("configuration", "against", "gain (points)"), named, about),
        caption="A difference is beyond chance if its interval does not include 0.",
        height_px=76 + 34 * len(rows),
    )


def radius_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, Measured]]]], norm: str, attack: str, tints: Tints | None = None
) -> Chart:
    """Accuracy against the radius of the budget."""
    tints = tints or tints_of(name for name, _ in series)
    bands = told_apart([dict(points) for _, points in series])
    bars = bands or len(series) <= _FEW_LINES
    drawn = []
    for name, points in series:
        marks = []
        for eps, share in points:
            figure = share.scaled(100)
            tip = f"{name}\neps {as_fraction(eps)}: {interval_text(figure)}"
            marks.append(Mark(eps, figure.value, None, figure.interval if bars else None, tip=tip))
        drawn.append(Series(tuple(marks), tint(tints[name]), (name,), "solid", band=bands))
    every = sorted({eps for _, points in series for eps, _ in points})
    radii = tuple((eps, as_fraction(eps)) for eps in every)
    rows = [
        (name, Cell(as_fraction(eps), eps), percent_cell(figure)) for name, points in series for eps, figure in points
    ]
    return Chart(
        name="radius",
        title="Robust accuracy over eps",
        alt="Accuracy falls with the radius of the budget. At the largest, "
        + f"{as_fraction(every[-1])}: "
        + "; ".join(f"{name} {100 * points[-1][1].value:.1f} percent" for name, points in series),
        plot=Plot(
            Axis(f"eps ({norm_text(norm)}, images in [0, 1])", 0, ticks=radii),
            percent_axis("accuracy (%)"),
            tuple(drawn),
            tuple(Key(name, tint(tints[name]), "solid") for name, _ in series),
        ),
        data=table(
            ("configuration", f"eps, {norm_text(norm)}", "accuracy [95 %]"), rows, f"Accuracy over eps, {attack}"
        ),
        caption=f"{attack}. The value at 0 is clean accuracy. " + about_intervals(bands, bars),
    )


def about_intervals(bands: bool, bars: bool) -> str:
    """How the intervals of lines are shown."""
    if bars:
        return f"{'Bands' if bands else 'Bars'}: 95 % intervals."
    return "The 95 % intervals overlap; they are in the figures below."

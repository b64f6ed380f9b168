"""What a plot shows, as plain values: series of marks between two axes. `_svg` draws them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from robustmaps.engine.measured import Measured

SERIES = 8
"""The number of colours; a plot with more series reuses them."""
GOOD, MUTED = "good", "muted"
"""Colours with a meaning: robust, and of little importance."""

Dash = Literal["solid", "dash", "dot"]
Interval = tuple[float, float]
Tints = Mapping[str, int]
"""The colour of each name, the same in every plot."""


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
        title: what it measures, with its unit.
        low, high: its ends; where None, those of the marks with some room.
        ticks: places and their labels; evenly spaced round numbers if empty.
        suffix: what follows the number of a tick.
        names: names of the places 0, 1, ..., from the top or left; empty for an axis of numbers.
        rule: a place with a line across the plot; None for none.
    """

    title: str = ""
    low: float | None = None
    high: float | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    suffix: str = ""
    names: tuple[str, ...] = ()
    rule: float | None = None


@dataclass(frozen=True)
class Mark:
    """A point or a bar.

    Attributes:
        x, y: its place; of a bar, where its interval is drawn.
        x_interval, y_interval: the interval of either figure; None for none.
        box: of a bar, its left, right, lower and upper end.
        tip: the text shown when it is pointed at.
        label: a text written beside it where there is room.
        size_px: radius of a point.
    """

    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    box: tuple[float, float, float, float] | None = None
    tip: str = ""
    label: str = ""
    size_px: float = 4.0


@dataclass(frozen=True)
class Series:
    """Marks that look alike.

    Attributes:
        marks: the marks, from left to right for a line.
        tint: the number of its colour, `GOOD` or `MUTED`.
        keys: the entries of the legend that it belongs to; it is shown while all of them are switched on.
        line: how its points are connected; None for not at all.
        band: whether the area between the bounds is shaded, instead of a bar at every point.
        shape: the shape of its points: 0 circle, 1 square, 2 diamond, 3 triangle.
        points: whether the points of a line are drawn.
    """

    marks: tuple[Mark, ...]
    tint: str
    keys: tuple[str, ...] = ()
    line: Dash | None = None
    band: bool = False
    shape: int = 0
    points: bool = True


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        name: its text.
        tint: the colour that it explains; `MUTED` where it explains a shape or a line.
        look: what is drawn beside it: a box, a line, or the number of a shape.
        on: whether its series are shown at first.
    """

    name: str
    tint: str = MUTED
    look: Dash | int | Literal["box"] = "box"
    on: bool = True


@dataclass(frozen=True)
class Plot:
    """Two axes, the series between them, and the legend."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    legend: tuple[Key, ...] = ()


def tint(index: int) -> str:
    """The colour of a number."""
    return str(index % SERIES)


def tints_of(names: Iterable[str]) -> Tints:
    """A colour for each name, in order of appearance."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def percent_axis(title: str) -> Axis:
    """An axis of percentages from 0 to 100."""
    return Axis(title, 0, 100, suffix=" %")


def interval_text(figure: Measured, unit: str = " %") -> str:
    """A figure in percent for a tip."""
    return f"{figure.value:.1f}{unit} [{figure.low:.1f}, {figure.high:.1f}]"


def names_axis(names: Sequence[str], title: str = "") -> Axis:
    """An axis of names."""
    return Axis(title, -0.5, len(names) - 0.5, names=tuple(names))

"""Draw a plot as SVG, once for a wide and once for a narrow page, which shows the one that fits.

Colours are classes, so that the page's theme decides them. Nothing in a plot needs a script: that of the page adds tips
and switches series on and off.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from robustmaps.engine.text import visible
from robustmaps.figures import Box, place_labels, text_width, wrapped
from robustmaps.report.charts._plot import Axis, Interval, Mark, Plot, Series

WIDE_PX, NARROW_PX = 880, 380
_FONT = 13
_LINE = 16
_TOP, _RIGHT = 26, 18
_DASHES = {"solid": "", "dash": "7 4", "dot": "2 4"}
_SHAPES = (
    "M{r},0A{r},{r} 0 1 1 -{r},0A{r},{r} 0 1 1 {r},0Z",
    "M-{s},-{s}H{s}V{s}H-{s}Z",
    "M0,-{d}L{d},0L0,{d}L-{d},0Z",
    "M0,-{d}L{d},{s}H-{d}Z",
)


def draw(plot: Plot, height_px: int) -> Markup:
    """The plot for both widths."""
    return Markup("\n").join(
        [
            _Drawing(plot, WIDE_PX, height_px, "wide").svg(),
            _Drawing(plot, NARROW_PX, height_px if plot.y.names else min(height_px, 320), "narrow").svg(),
        ]
    )


def swatch(look: str | int) -> Markup:
    """The picture beside an entry of a legend."""
    if look == "box":
        inner = _tag("rect", x=1, y=2, width=16, height=8, rx=2, class_="fill")
    elif isinstance(look, int):
        inner = _tag("path", d=_shape(look, 5), transform="translate(9 6)", class_="fill")
    else:
        inner = _tag("path", d="M0,6H18", class_="line", stroke_dasharray=_DASHES[look])
    return _tag("svg", inner, viewBox="0 0 18 12", width=18, height=12, aria_hidden="true")


@dataclass
class _Scale:
    """From figures to pixels."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


class _Drawing:
    """A plot at one width."""

    def __init__(self, plot: Plot, width: int, height: int, name: str) -> None:
        self.plot, self.width, self.height, self.name = plot, width, height, name
        self.narrow = name == "narrow"
        every = [mark for series in plot.series for mark in series.marks]
        x_ends = _ends(plot.x, [end for mark in every for end in _reach(mark.x, mark.x_interval)])
        y_ends = _ends(plot.y, [end for mark in every for end in _reach(mark.y, mark.y_interval)])
        self.x_ticks = plot.x.ticks or _round(x_ends, 4 if self.narrow else 7, plot.x.suffix)
        self.y_ticks = plot.y.ticks or _round(y_ends, 5, plot.y.suffix)
        self.lift = 0
        if plot.y.names:
            self._arrange_names()
            left = 4 if self.narrow else self.names_px + 12
        else:
            left = 14 + max((text_width(text, 12) for _, text in self.y_ticks), default=0)
        self.left = left
        self.turned = bool(plot.x.names) and self._too_wide(plot.x.names)
        self.bottom = self.height - (26 if plot.x.title else 8) - self._under()
        self.x = _Scale(*x_ends, left, width - _RIGHT)
        # Places with names run from the top, figures from the bottom.
        self.y = _Scale(*y_ends, _TOP, self.bottom) if plot.y.names else _Scale(*y_ends, self.bottom, _TOP)

    def _arrange_names(self) -> None:
        """Names stand to the left of their rows; above them where the page is narrow."""
        limit = self.width - 8 if self.narrow else 0.34 * self.width
        self.rows = [wrapped(visible(name), limit, _FONT, 2) for name in self.plot.y.names]
        self.names_px = max((text_width(line, _FONT) for lines in self.rows for line in lines), default=0)
        if self.narrow:
            self.lift = _LINE * max(map(len, self.rows)) + 2
            self.height = self.height + self.lift * len(self.rows) // 2

    def _too_wide(self, names: Sequence[str]) -> bool:
        room = (self.width - self.left - _RIGHT) / len(names)
        return any(text_width(visible(name), 12) > room - 6 for name in names)

    def _under(self) -> float:
        """The room for the labels of the x axis."""
        if not self.turned:
            return 22
        return 14 + 0.64 * min(max(text_width(visible(name), 12) for name in self.plot.x.names), 150)

    def at_y(self, value: float) -> float:
        """The pixel of a figure or a place; a row's marks are below its name."""
        if not self.lift:
            return self.y(value)
        row = round(value)
        pitch = self.y(1) - self.y(0)
        return self.y(row) + self.lift / 2 + (value - row) * (pitch - self.lift)

    def svg(self) -> Markup:
        """All of it."""
        parts = [*self._axes(), *(self._series(series) for series in self.plot.series), *self._labels()]
        size = f"0 0 {self.width} {self.height}"
        return _tag("svg", Markup("").join(parts), class_=self.name, viewBox=size, aria_hidden="true")

    def _axes(self) -> Iterable[Markup]:
        x, y = self.plot.x, self.plot.y
        right = self.width - _RIGHT
        if not y.names:
            for value, text in self.y_ticks:
                at = self.y(value)
                yield _tag("path", d=_path((self.left, at), (right, at)), class_="grid")
                yield _text(text, self.left - 8, at + 4, "end")
        if not x.names:
            for value, text in _spaced(self.x_ticks, self.x):
                at = self.x(value)
                yield _tag("path", d=_path((at, _TOP), (at, self.bottom)), class_="grid")
                yield _text(text, at, self.bottom + 17, "middle")
        for rule, place in ((x.rule, self.x), (y.rule, self.at_y)):
            if rule is not None:
                at = place(rule)
                ends = ((at, _TOP), (at, self.bottom)) if rule is x.rule else ((self.left, at), (right, at))
                yield _tag("path", d=_path(*ends), class_="rule")
        yield from self._x_names()  # on top of the lines, which names may cross where the plot is narrow
        yield from self._y_names()
        if y.title:
            yield _text(y.title, 2, 12, "start", "title")
        if x.title:
            yield _text(x.title, (self.left + right) / 2, self.height - 8, "middle", "title")

    def _x_names(self) -> Iterable[Markup]:
        for place, name in enumerate(self.plot.x.names):
            at, under = self.x(place), self.bottom + 15
            if self.turned:
                text = wrapped(visible(name), 150, 12, 1)[0]
                yield _text(text, at + 4, under, "end", transform=f"rotate(-40 {at + 4:.1f} {under:.1f})")
            else:
                yield _text(name, at, under + 2, "middle")

    def _y_names(self) -> Iterable[Markup]:
        for place, lines in enumerate(self.rows if self.plot.y.names else ()):
            middle = self.y(place)
            for number, line in enumerate(lines):
                if self.narrow:
                    pitch = abs(self.y(1) - self.y(0))
                    yield _text(line, 2, middle - pitch / 2 + _LINE * (number + 1), "start", "name")
                else:
                    shift = (number - (len(lines) - 1) / 2) * _LINE
                    yield _text(line, self.left - 10, middle + shift + 4, "end", "name")

    def _series(self, series: Series) -> Markup:
        parts = [*self._area(series), *self._line(series), *self._whiskers(series)]
        parts += [part for mark in series.marks for part in self._mark(mark, series)]
        keys = [n for n, key in enumerate(self.plot.legend) if key.name in series.keys]
        shown = all(self.plot.legend[n].on for n in keys)
        hidden = {} if shown else {"style": "display:none"}
        return _tag(
            "g", Markup("").join(parts), class_=f"series t{series.tint}", data_keys=" ".join(map(str, keys)), **hidden
        )

    def _area(self, series: Series) -> Iterable[Markup]:
        if series.band:
            known = [(mark.x, mark.y_interval) for mark in series.marks if mark.y_interval is not None]
            there = [(self.x(x), self.at_y(low)) for x, (low, _) in known]
            back = [(self.x(x), self.at_y(high)) for x, (_, high) in reversed(known)]
            yield _tag("path", d=_path(*there, *back) + "Z", class_="band")

    def _line(self, series: Series) -> Iterable[Markup]:
        if series.line is not None:
            path = _path(*((self.x(mark.x), self.at_y(mark.y)) for mark in series.marks))
            yield _tag("path", d=path, class_="line", stroke_dasharray=_DASHES[series.line])

    def _whiskers(self, series: Series) -> Iterable[Markup]:
        for mark in () if series.band else series.marks:
            x, y = self.x(mark.x), self.at_y(mark.y)
            if mark.x_interval is not None:
                low, high = map(self.x, mark.x_interval)
                caps = "".join(_path((end, y - 4), (end, y + 4)) for end in (low, high))
                yield _tag("path", d=_path((low, y), (high, y)) + caps, class_="whisker")
            if mark.y_interval is not None:
                low, high = map(self.at_y, mark.y_interval)
                caps = "".join(_path((x - 4, end), (x + 4, end)) for end in (low, high))
                yield _tag("path", d=_path((x, low), (x, high)) + caps, class_="whisker")

    def _mark(self, mark: Mark, series: Series) -> Iterable[Markup]:
        tip = {"data_tip": visible(mark.tip)} if mark.tip else {}
        if mark.box is not None:
            left, right, lower, upper = mark.box
            ends = sorted((self.at_y(lower), self.at_y(upper)))
            size = {"width": _number(self.x(right) - self.x(left)), "height": _number(ends[1] - ends[0])}
            yield _tag("rect", x=_number(self.x(left)), y=_number(ends[0]), **size, class_="fill bar", **tip)
            return
        at = f"translate({_number(self.x(mark.x))} {_number(self.at_y(mark.y))})"
        if series.points:
            yield _tag("path", d=_shape(series.shape, mark.size_px), transform=at, class_="fill point")
        if tip:  # larger than what is seen, so that it is easily met
            yield _tag("circle", r=max(9, mark.size_px + 3), transform=at, class_="hit", **tip)

    def _labels(self) -> Iterable[Markup]:
        marks = [(mark, series) for series in self.plot.series for mark in series.marks if mark.box is None]
        wanted = [(self.x(m.x), self.at_y(m.y), m.size_px, visible(m.label)) for m, _ in marks]
        if not any(label for *_, label in wanted):
            return
        room = Box(self.left, _TOP, self.width - 4, self.bottom)
        for number, (placed, (x, y, *_)) in enumerate(zip(place_labels(wanted, room), wanted, strict=True)):
            if placed is None:
                continue
            mark, series = marks[number]
            keys = [n for n, key in enumerate(self.plot.legend) if key.name in series.keys]
            box, far = placed
            parts = [_text(mark.label, box.left + 2, box.bottom - 4, "start", "label")]
            if far:
                near = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
                parts.append(_tag("path", d=_path((x, y), near), class_="leader"))
            yield _tag("g", Markup("").join(parts), class_="series", data_keys=" ".join(map(str, keys)))


def _reach(value: float, interval: Interval | None) -> tuple[float, ...]:
    return (value, *(interval or ()))


def _ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: those given, else those of the values with some room."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    if axis.rule is not None:
        finite.append(axis.rule)
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or abs(high) or 1.0
    return (low - room if axis.low is None else axis.low, high + room if axis.high is None else axis.high)


def _round(ends: tuple[float, float], most: int, suffix: str) -> tuple[tuple[float, str], ...]:
    """At most so many round numbers between both ends."""
    low, high = ends
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    places = [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return tuple((place, f"{place:.10g}{suffix}") for place in places)


def _spaced(ticks: Sequence[tuple[float, str]], scale: _Scale) -> Iterable[tuple[float, str]]:
    """The ticks whose labels don't touch; the last one is kept rather than its neighbours."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if not kept:
            kept.append(tick)
            continue
        room = abs(scale(kept[-1][0]) - scale(tick[0]))
        if room >= (text_width(kept[-1][1], 12) + text_width(tick[1], 12)) / 2 + 6:
            kept.append(tick)
    return reversed(kept)


def _path(*points: tuple[float, float]) -> str:
    """A line through points."""
    if len(points) > 1 and all(a == b for a, b in pairwise(points)):
        points = points[:1]
    return "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _shape(shape: int, radius: float) -> str:
    # As large to the eye as a circle of that radius.
    return _SHAPES[shape % len(_SHAPES)].format(r=_number(radius), s=_number(0.9 * radius), d=_number(1.25 * radius))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str, x: float, y: float, anchor: str, kind: str = "tick", **more: object) -> Markup:
    shown = escape(visible(text))
    return _tag("text", shown, x=_number(x), y=_number(y), text_anchor=anchor, class_=kind, **more)


def _tag(name: str, content: Markup | str = "", **attributes: object) -> Markup:
    """An element; underscores in names of attributes are hyphens, and empty values are left out."""
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value != "")
    written = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in given)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, content)

"""Shared parts of the plots: figures with bounds, axes, bands, escaped names."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustmaps.engine.measured import Measured
from robustmaps.engine.text import visible

SERIES = 8
"""The number of colours; a plot with more series reuses them."""

Trace = dict[str, Any]
Tints = Mapping[str, int]
"""The colour of each name, the same in every plot."""


def plain(text: str) -> str:
    """A name escaped for Plotly, which interprets some HTML in texts."""
    return html.escape(visible(text), quote=False)


def colour(index: int, opacity: float | None = None) -> str:
    """The placeholder of a series' colour, which the page replaces."""
    token = f"${index % SERIES}"
    return token if opacity is None else f"{token}/{opacity:g}"


def tints_of(names: Iterable[str]) -> Tints:
    """A colour for each name, in order of appearance."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def bars(figures: Sequence[Measured]) -> dict[str, Any]:
    """Error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [figure.high - figure.value for figure in figures],
        "arrayminus": [figure.value - figure.low for figure in figures],
        "thickness": 1.2,
        "width": 3,
    }


def band(x: Sequence[float], figures: Sequence[Measured], index: int, group: str) -> Trace:
    """The area between the bounds, toggled together with its line."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*(figure.low for figure in figures), *(figure.high for figure in reversed(figures))],
        "fill": "toself",
        "fillcolor": colour(index, 0.14),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": group,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": title}, **more}


def percent_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis of percentages from 0 to 100."""
    return axis(title, range=[0, 100], ticksuffix=" %", **more)

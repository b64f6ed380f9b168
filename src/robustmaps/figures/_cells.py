"""Figures with their intervals, and how a table shows them."""

from typing import NamedTuple

from robustmaps.figures._tables import Cell

NONE = "-"
"""In a table, for what is not known."""


class Bounded(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def percent(figure: Bounded) -> Bounded:
    """A share as a percentage."""
    return Bounded(*(100 * part for part in figure))


def percent_cell(figure: Bounded) -> Cell:
    """A share as a percentage for a table: ``68.6 % [64.5, 72.8]``."""
    value, low, high = percent(figure)
    return Cell(f"{value:.1f} % [{low:.1f}, {high:.1f}]", value, (low, high))


def points_cell(figure: Bounded) -> Cell:
    """A difference in percentage points for a table: ``+9.5 [+6.3, +13.1]``."""
    value, low, high = percent(figure)
    return Cell(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", value, (low, high))

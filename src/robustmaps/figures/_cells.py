"""Table cells of figures with their intervals."""

from robustmaps.engine.measured import Measured
from robustmaps.figures._tables import Cell

NONE = "-"
"""The text of an unknown value in a table."""


def percent_cell(figure: Measured) -> Cell:
    """A share as a percentage for a table: ``68.6 % [64.5, 72.8]``."""
    one = figure.scaled(100)
    return Cell(f"{one.value:.1f} % [{one.low:.1f}, {one.high:.1f}]", one.value, one.interval)


def points_cell(figure: Measured) -> Cell:
    """A difference in percentage points for a table: ``+9.5 [+6.3, +13.1]``."""
    one = figure.scaled(100)
    return Cell(f"{one.value:+.1f} [{one.low:+.1f}, {one.high:+.1f}]", one.value, one.interval)

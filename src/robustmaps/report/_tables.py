"""Tables of text, the same rows for a terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under column names.

    Attributes:
        columns: the names, units included.
        rows: one text per column.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells under {len(self.columns)} columns: {row}")

    def to_markdown(self) -> str:
        """As a Markdown table; pipes in cells are escaped."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of anything that prints."""
    return Table(tuple(columns), tuple(tuple(str(cell) for cell in row) for row in rows))

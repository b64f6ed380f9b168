"""Tables of figures with their intervals, with a writer for text, Markdown, LaTeX and CSV each."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.text import visible

if TYPE_CHECKING:
    from robustmaps.engine.measured import Measured

NONE = "-"
"""The text of an unknown value in a table."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "÷": r"$\div$",
    "\u2212": "$-$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{chr(0x2080 + digit): f"$_{digit}$" for digit in range(10)},
    "[": "{[}",
    "]": "{]}",
}
"""Square brackets are wrapped too, since LaTeX reads one after a row's end as an option."""
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula in a spreadsheet, also in full width."""
_BOLD = "Bold: the highest of its column, also where it is within chance"
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
"""The hyphen that people type before a number."""
_NORM = re.compile(r"\bl\\_(inf|1|2)\b")
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
_CAPITALS = frozenset(["GAMMA", "DELTA", "THETA", "LAMBDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"])
"""Greek capitals that differ from all Latin ones; LaTeX has commands for no others."""
_TYPESET = re.compile(r"[\x00-\u024f\u2010-\u2027\u2030-\u203a\u20ac\u2122]")
"""What pdfLaTeX sets without further packages."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Cell:
    """A figure, as text for people and as a value for programs.

    Attributes:
        text: the figure with unit and interval.
        value: the value for sorting and CSV, if any.
        interval: the bounds of the value, if any.
    """

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """Rows under column names.

    Attributes:
        columns: the column names, with units.
        rows: one text or figure per column.
        caption: a description of the rows.
        words: the number of first columns that contain words, while the others contain figures; None where a column
            of figures is one that has a `Cell`.
        whole: the number of first columns whose words are never broken over lines, such as names to be copied.
        best: columns of which the highest figure is the best, in bold in LaTeX.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    caption: str = ""
    words: int | None = None
    whole: int = 0
    best: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row of {len(row)} cells {row}: expected {len(self.columns)}, one per column")

    def is_figures(self, column: int) -> bool:
        """Whether a column contains figures rather than words."""
        if self.words is not None:
            return column >= self.words
        return any(isinstance(row[column], Cell) for row in self.rows)

    def __str__(self) -> str:
        lines = [self.columns, *(tuple(map(str, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join(line.rstrip() for line in aligned)

    def to_markdown(self) -> str:
        """Format as a Markdown table; Markdown and HTML syntax in cells is escaped."""
        head, *body = ([in_markdown(str(cell)) for cell in line] for line in (self.columns, *self.rows))
        lines = [head, ["---" for _ in self.columns], *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def only(self, columns: Sequence[str]) -> "Table":
        """The table with these columns in this order; a column's unit in brackets may be left out of its name.

        Raises:
            InputError: there is no such column, or none is named.
        """
        short = {name.partition(" (")[0]: name for name in reversed(self.columns)}
        places = []
        for column in columns:
            name = column if column in self.columns else short.get(column)
            if name is None:
                raise unknown("column", column, list(dict.fromkeys(name.partition(" (")[0] for name in self.columns)))
            places.append(self.columns.index(name))
        if not places or len(set(places)) < len(places):
            raise InputError(f"columns {','.join(columns)!r}: expected at least one column, and each once")
        kept = [place for place in places if not self.is_figures(place)]
        # Where figures stand between words, cells tell which are figures.
        words = len(kept) if places[: len(kept)] == kept and self.words is not None else None
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in places), rows=rows, words=words, whole=0)

    def to_latex(self, label: str = "") -> str:
        r"""Format as a LaTeX table for the package booktabs: right-aligned figures, true minus signs, the best in bold.

        Args:
            label: label for ``\ref``; empty for none.
        """
        kinds = "".join("r" if self.is_figures(column) else "l" for column in range(len(self.columns)))
        bold = {(row, column) for column in range(len(self.columns)) for row in self._best(column)}
        body = []
        for number, row in enumerate(self.rows):
            cells = ["--" if str(cell) == NONE else _latex(str(cell)) for cell in row]
            cells = [rf"\textbf{{{c}}}" if (number, place) in bold else c for place, c in enumerate(cells)]
            body.append(" & ".join(cells) + r" \\")
        caption = _latex(self.caption)
        if bold:
            caption = ". ".join([*([caption.rstrip(".")] if caption else []), f"{_BOLD}."])
        made = "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                *([rf"\caption{{{caption}}}"] if caption else []),
                *([rf"\label{{{label}}}"] if label else []),
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\toprule",
                " & ".join(map(_latex, self.columns)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )
        others = "".join(sorted(set(_TYPESET.sub("", made)) - {"\n"}))
        note = f"% pdfLaTeX does not know these characters, XeLaTeX and LuaLaTeX do: {others}\n" if others else ""
        return f"{note}{made}\n"

    def _best(self, column: int) -> list[int]:
        """The rows with the highest figure of a column, as it is shown; none where all of them have it."""
        if self.columns[column] not in self.best:
            return []
        known = {number: row[column] for number, row in enumerate(self.rows) if isinstance(row[column], Cell)}
        values = {n: cell.value for n, cell in known.items() if isinstance(cell, Cell) and cell.value is not None}
        shown = {number: str(known[number]).split()[0] for number in values}
        if len(set(shown.values())) < 2:
            return []
        highest = max(values, key=lambda number: values[number])
        return [number for number, text in shown.items() if text == shown[highest]]

    def to_csv(self) -> str:
        """Format as CSV, with figures as plain numbers and intervals in separate columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        wide = [self._has_intervals(column) for column in range(len(self.columns))]
        writer.writerow(
            in_csv(part)
            for name, bounds in zip(self.columns, wide, strict=True)
            for part in ((name, f"{name}, low", f"{name}, high") if bounds else (name,))
        )
        for row in self.rows:
            parts = (part for cell, bounds in zip(row, wide, strict=True) for part in _plain(cell, bounds))
            writer.writerow(map(in_csv, parts))
        return text.getvalue()

    def _has_intervals(self, column: int) -> bool:
        cells = (row[column] for row in self.rows)
        return any(isinstance(cell, Cell) and cell.interval is not None for cell in cells)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    *,
    words: int | None = None,
    whole: int = 0,
    best: Sequence[str] = (),
) -> Table:
    """A table of any values; cells stay cells, and the others become text."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else str(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells, caption, words, whole, tuple(best))


def percent_cell(figure: "Measured") -> Cell:
    """A share as a percentage for a table: ``68.6 % [64.5, 72.8]``."""
    one = figure.scaled(100)
    return Cell(f"{one.value:.1f} % [{one.low:.1f}, {one.high:.1f}]", one.value, one.interval)


def points_cell(figure: "Measured") -> Cell:
    """A difference in percentage points for a table: ``+9.5 [+6.3, +13.1]``."""
    one = figure.scaled(100)
    return Cell(f"{one.value:+.1f} [{one.low:+.1f}, {one.high:+.1f}]", one.value, one.interval)


def _plain(cell: str | Cell, bounds: bool) -> Iterator[object]:
    if isinstance(cell, str):
        yield cell
        yield from ("", "") if bounds else ()
        return
    yield cell.text if cell.value is None else cell.value
    if bounds:
        yield from cell.interval or ("", "")


def in_csv(value: object) -> object:
    """A value for a cell of CSV: texts that a spreadsheet would compute get an apostrophe in front; numbers stay.

    >>> in_csv("=1+1"), in_csv("-0.5"), in_csv(-0.5), in_csv("-")
    ("'=1+1", '-0.5', -0.5, '-')
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    computed = text.lstrip(" \n").startswith(_FORMULA) or text.startswith(("\t", "\n"))
    return f"'{text}" if computed and text != "-" and not _NUMBER.fullmatch(text) else text


def in_markdown(text: str) -> str:
    """Escape Markdown and HTML syntax in plain text for a line of Markdown."""
    text = visible(text).replace("\n", " ")
    # Backslashes first, since the other escapes add some.
    for special in "\\|`*~$":
        text = text.replace(special, f"\\{special}")
    # Links and pictures; brackets of intervals need no escape.
    text = re.sub(r"\](?=[(\[:])", r"]\\", text)
    text = re.sub(r"(?i)(?<=https|.http|..ftp)(?=://)|(?<=\bwww)(?=\.)", r"\\", text)
    # Underscores within words are text, so names of networks and files stay readable.
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    # What would begin a heading, a list or a quotation, or underline one.
    return re.sub(r"^(\s*)(?=(?:#{1,6}|[-+>])\s|>|[-=]{2,}\s*$)|^(\s*\d{1,9})(?=[.)]\s)", r"\1\2\\", text)


def code_in_markdown(text: str) -> str:
    """Text as code within a line of Markdown, whatever backticks it has."""
    text = visible(text).replace("\n", " ")
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _latex(text: str) -> str:
    text = _MINUS.sub("\u2212", visible(text)).replace("\n", " ")
    made = "".join(_LATEX.get(character) or _greek(character) for character in text)
    made = _NORM.sub(lambda norm: rf"$\ell_{{{norm[1].replace('inf', chr(92) + 'infty')}}}$", made)
    # Two hyphens or quotes in a row would become one sign.
    return re.sub(r"(?<=-)(?=-)|(?<=')(?=')", "{}", made)


def _greek(character: str) -> str:
    """The formula of a Greek letter; any other character as it is."""
    found = _GREEK.fullmatch(unicodedata.name(character, "").replace("LAMDA", "LAMBDA"))
    if found is None or (found[2] not in _CAPITALS if found[1] == "CAPITAL" else found[2] == "OMICRON"):
        return character
    return f"$\\{found[2].capitalize() if found[1] == 'CAPITAL' else found[2].lower()}$"

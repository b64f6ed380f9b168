"""The building blocks of a report: plain values, independent of runs and of HTML."""

from dataclasses import dataclass
from typing import Literal

from robustmaps.engine.tables import Table
from robustmaps.report.charts._plot import Plot


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain text.
        kind: ``plain``, ``note`` for important remarks, or ``warning`` for doubts about figures.
    """

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Missing:
    """A placeholder for content that is not available yet.

    Attributes:
        text: what is missing.
        command: the command that creates it.
    """

    text: str
    command: str


@dataclass(frozen=True)
class Fact:
    """A key figure.

    Attributes:
        label: its name.
        value: the figure with its unit.
        detail: its uncertainty or its reference.
    """

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """Key figures side by side."""

    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Listing:
    """A table of the report, on the page and as files.

    Attributes:
        name: name of its files, unique within the page; letters, digits and hyphens.
        table: the table with its caption.
        sortable: whether a click on a column's name sorts it.
        filterable: whether it has a filter field.
        folded: whether it is collapsed at first.
        latex: the columns of its LaTeX file; all of them if empty.
    """

    name: str
    table: Table
    sortable: bool = False
    filterable: bool = False
    folded: bool = False
    latex: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A plot, with its figures as a table.

    Attributes:
        name: unique within the page; letters, digits and hyphens.
        title: the title.
        alt: its message in words, for screen readers.
        plot: its axes, series and legend.
        data: the plotted figures, shown below the plot and written as files.
        caption: how to read it.
        height_px: height of the plot on a wide page.
    """

    name: str
    title: str
    alt: str
    plot: Plot
    data: Table | None = None
    caption: str = ""
    height_px: int = 360


@dataclass(frozen=True)
class Tile:
    """A small picture with a title above and a note below.

    Attributes:
        png: contents of the PNG file.
        alt: the picture in words.
        title: text above the picture.
        note: text below the picture.
        right: whether the note is a correct prediction; None if it is not a prediction.
    """

    png: bytes
    alt: str
    title: str = ""
    note: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """Rows of small pictures.

    Attributes:
        title: the title.
        rows: the rows of pictures, each with its name.
        caption: how to read them.
    """

    title: str
    rows: tuple[tuple[str, tuple[Tile, ...]], ...]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as wide as the page.

    Attributes:
        title: the title.
        png: contents of the PNG file.
        alt: the figure in words.
        caption: how to read it.
    """

    title: str
    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Code:
    """Text to copy, such as commands or a configuration."""

    title: str
    text: str
    folded: bool = False


Block = Text | Missing | Facts | Listing | Chart | Gallery | Picture | Code


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: unique within the page; letters, digits and hyphens.
        title: the heading.
        blocks: its contents.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Part:
    """An answer and its evidence.

    Attributes:
        title: a title that distinguishes it from other parts; empty for a single part.
        answer: the answer, in one or a few sentences.
        facts: its key figures.
        sections: its sections; names are unique within the page.
    """

    title: str
    answer: tuple[str, ...]
    facts: Facts
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: its subject.
        kind: a run or a study, shown above the title.
        parts: one part, or several that can't be compared.
        footer: versions and machine.
        warnings: doubts about figures.
    """

    title: str
    kind: str
    parts: tuple[Part, ...]
    footer: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def answer(self) -> tuple[str, ...]:
        """The answers of all parts, prefixed with their titles."""
        return tuple(
            f"{part.title}: {sentence}" if part.title else sentence for part in self.parts for sentence in part.answer
        )

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections of all parts."""
        return tuple(section for part in self.parts for section in part.sections)

    def listings(self) -> list[Listing]:
        """All tables of the page, including those of plots, in order."""
        found = []
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Listing):
                    found.append(block)
                elif isinstance(block, Chart) and block.data is not None:
                    found.append(Listing(block.name, block.data))
        return found

"""What a report is made of: plain values, which know nothing of runs or of HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from robustmaps.figures import Table


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain text.
        kind: ``plain``; ``note`` for what the reader has to know, ``warning`` for what makes figures doubtful.
    """

    text: str
    kind: Literal["plain", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Missing:
    """A part that can't be shown yet.

    Attributes:
        text: what is missing.
        command: what makes it.
    """

    text: str
    command: str


@dataclass(frozen=True)
class Fact:
    """A key figure.

    Attributes:
        label: what it is.
        value: the figure, with its unit.
        detail: how sure it is, or what it is measured against.
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
        name: of the files, and of the table within the page: letters, digits and hyphens.
        table: with its caption.
        sortable: by clicking on a column's name.
        filterable: by typing into a field.
        folded: shown only when it is opened.
    """

    name: str
    table: Table
    sortable: bool = False
    filterable: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """An interactive plot in Plotly's form.

    Attributes:
        name: within the page: letters, digits and hyphens.
        title: what is shown.
        alt: what it says, in words, for those who don't see it.
        traces: Plotly's traces. Colours are written ``$0``, ``$1`` ... for series, with an opacity as ``$0/0.2``, and
            ``$text``, ``$muted``, ``$grid``, ``$surface``, ``$good`` and ``$bad``; the page fills in those that suit
            its light or dark look.
        layout: Plotly's layout, likewise.
        data: the plotted figures, below the plot and as files.
        caption: how to read it.
        height_px: of the plot.
    """

    name: str
    title: str
    alt: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    data: Table | None = None
    caption: str = ""
    height_px: int = 420


@dataclass(frozen=True)
class Tile:
    """A small picture with a name above and a remark below.

    Attributes:
        png: the file's bytes.
        alt: what is seen, in words.
        title: above it.
        note: below it.
        right: whether the remark names something right or wrong; None where that is no question.
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
        title: what is shown.
        rows: a name for each row of pictures.
        caption: how to read them.
    """

    title: str
    rows: tuple[tuple[str, tuple[Tile, ...]], ...]
    caption: str = ""


@dataclass(frozen=True)
class Code:
    """Text to be copied, such as commands or a configuration."""

    title: str
    text: str
    folded: bool = False


Block = Text | Missing | Facts | Listing | Chart | Gallery | Code


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading.

    Attributes:
        name: within the page: letters, digits and hyphens.
        title: the heading.
        blocks: what stands below it.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Part:
    """An answer and what it rests on.

    Attributes:
        title: what tells it from the other parts; empty where it is the only one.
        answer: the answer, in a sentence or a few.
        facts: its key figures.
        sections: the rest; names are unique within the page.
    """

    title: str
    answer: tuple[str, ...]
    facts: Facts
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: what it is on.
        kind: a run or a study, for the line above the title.
        parts: one, or several that can't be compared with each other.
        footer: versions and machine.
        warnings: what makes figures doubtful.
    """

    title: str
    kind: str
    parts: tuple[Part, ...]
    footer: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def answer(self) -> tuple[str, ...]:
        """The answers of all parts, each with its part's title."""
        return tuple(
            f"{part.title}: {sentence}" if part.title else sentence for part in self.parts for sentence in part.answer
        )

    @property
    def sections(self) -> tuple[Section, ...]:
        """Those of all parts."""
        return tuple(section for part in self.parts for section in part.sections)

    def listings(self) -> list[Listing]:
        """Every table of the page, those of plots included, in order."""
        found = []
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Listing):
                    found.append(block)
                elif isinstance(block, Chart) and block.data is not None:
                    found.append(Listing(block.name, block.data))
        return found

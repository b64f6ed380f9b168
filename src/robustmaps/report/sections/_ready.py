"""The table and figure of a ready study, as `reproduce` left them in its folder."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustmaps.config import READY, Scale
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.declared import declared
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.tables import Table
from robustmaps.report._blocks import Block, Listing, Picture, Text
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow

_MEND = "reproduce the study again to write it again"
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class ReadyResult:
    """What a ready study shows, in its folder's ``ready.json``.

    Attributes:
        name: the study.
        also: its number in this package's list.
        scale: full or small.
        title: its title.
        about: what it shows.
        table: its table.
        picture: the file of its figure, in the same folder; None for a table alone.
        caption: how to read the figure.
        notes: what differs from the published settings.
    """

    name: str
    also: str
    scale: Scale
    title: str
    about: str
    table: Table
    picture: str | None = None
    caption: str = ""
    notes: tuple[str, ...] = ()

    @property
    def caution(self) -> str | None:
        """That the small version is no reproduction."""
        if self.scale == "full":
            return None
        return (
            "This is not a reproduction: it is a small version on embedded data, to try out the commands and see the "
            "form of the result. Its figures say nothing about those of the paper."
        )

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {"format": 1, **asdict(self)}


def read_ready(folder: Path) -> ReadyResult | None:
    """What the ready study in a folder shows; None if there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder / READY).is_file():
        return None
    return declared(ReadyResult, read_json(folder / READY, _MEND), f"{folder / READY}: ")


def ready(material: Material) -> Iterator[Block]:
    """What it shows, its table and its figure."""
    found, _ = material.once(_found)
    if found is None:
        return
    yield Text(found.about)
    yield from (Text(f"{note[0].upper()}{note[1:]}.", "note") for note in found.notes)
    yield Listing(found.name, found.table)
    if found.picture is not None:
        path = material.study.folder / Path(found.picture).name
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            alt = f"{found.title}; its figures are in the table"
            yield Picture(found.title, path.read_bytes(), alt, found.caption)


def _found(material: Material) -> tuple[ReadyResult | None, str | None]:
    """The result, or why it can't be read."""
    try:
        return read_ready(material.study.folder), None
    except InputError as error:
        return None, str(error)


def _title(material: Material) -> str:
    found, _ = material.once(_found)
    return "" if found is None else found.title


def _cautions(material: Material) -> Iterator[str]:
    found, unreadable = material.once(_found)
    if unreadable is not None:
        yield unreadable
    elif found is not None and found.caution:
        yield found.caution


ROW = SectionRow(name="ready", title=_title, order=5, blocks=ready, warnings=_cautions)

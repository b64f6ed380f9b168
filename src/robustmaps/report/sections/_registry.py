"""The sections of a report by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustmaps.engine.registry import Registry
from robustmaps.report._blocks import Block, Section

if TYPE_CHECKING:
    from robustmaps.report.sections._material import Material


@dataclass(frozen=True, kw_only=True)
class SectionRow:
    """What is known of a section: as ``ROW``, or several as ``ROWS``, in the module of its function.

    Attributes:
        name: within the page: letters, digits and hyphens.
        title: the heading, or what makes it.
        order: the lowest is at the top; those of ours are 10, 20, ... 90.
        blocks: what is below the heading; the section is left out if there is nothing.
        warnings: sentences for the top of the page.
    """

    name: str
    title: "str | Callable[[Material], str]"
    order: int
    blocks: "Callable[[Material], Iterable[Block]]"
    warnings: "Callable[[Material], Iterable[str]]" = lambda material: ()  # noqa: ARG005


_REGISTRY = Registry("robustmaps.report.sections", "section", SectionRow)
register = _REGISTRY.register


def sections(material: "Material") -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """All sections that have something to show, and what they warn of."""
    rows = sorted(_REGISTRY.rows(), key=lambda row: row.order)
    found = [
        Section(row.name, row.title if isinstance(row.title, str) else row.title(material), blocks)
        for row in rows
        if (blocks := tuple(row.blocks(material)))
    ]
    return tuple(found), tuple(warning for row in rows for warning in row.warnings(material))

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
    """A section's row: ``ROW``, or several in ``ROWS``, in the module of its function.

    Attributes:
        name: unique within the page; letters, digits and hyphens.
        title: the heading, or a function that returns it.
        order: position on the page, lowest first; the built-in sections have 10, 20, ... 90.
        blocks: returns the contents; a section without any is omitted.
        warnings: returns sentences for the top of the page.
    """

    name: str
    title: "str | Callable[[Material], str]"
    order: int
    blocks: "Callable[[Material], Iterable[Block]]"
    warnings: "Callable[[Material], Iterable[str]]" = lambda material: ()  # noqa: ARG005


_REGISTRY = Registry("robustmaps.report.sections", "section", SectionRow)
register = _REGISTRY.register


def sections(material: "Material") -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """All sections with contents, and their warnings."""
    rows = sorted(_REGISTRY.rows(), key=lambda row: row.order)
    found = [
        Section(row.name, row.title if isinstance(row.title, str) else row.title(material), blocks)
        for row in rows
        if (blocks := tuple(row.blocks(material)))
    ]
    return tuple(found), tuple(warning for row in rows for warning in row.warnings(material))

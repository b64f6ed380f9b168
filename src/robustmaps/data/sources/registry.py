"""The places that images come from by kind, and from a spec to its source."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from robustmaps.data.known import KNOWN
from robustmaps.data.source import Source
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import check_regular
from robustmaps.engine.registry import Registry


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """What is known of a kind of source beside its class: as ``ROW``, or several as ``ROWS``, in the same module.

    Attributes:
        name: of the kind.
        form: how ``--data`` names one; empty for what is in the table of named sets alone.
        summary: what it holds, in a line.
        named: the source that a text names; None where it is none of this kind.
        at: likewise for a file or folder that exists, by its absolute path.
        order: the lowest goes first where several would take the same.
    """

    name: str
    summary: str
    form: str = ""
    named: Callable[[str], Source | None] = lambda spec: None  # noqa: ARG005
    at: Callable[[Path], Source | None] = lambda path: None  # noqa: ARG005
    order: int = 0


_REGISTRY = Registry("robustmaps.data.sources", "source", SourceRow)
register = _REGISTRY.register


def forms() -> dict[str, str]:
    """What ``--data`` takes besides names, and what that holds."""
    return {row.form: row.summary for row in _rows() if row.form}


def resolve(spec: str | Path) -> Source:
    """Find the source that a spec names: what a text names first, then a path.

    Raises:
        InputError: there is no such name or path, or the path is nothing that images can be read from.
    """
    text, rows = str(spec), _rows()
    if isinstance(spec, str) and (source := _first(row.named(text) for row in rows)):
        return source
    path = Path(spec).expanduser()
    if path.exists():
        path = path.resolve()
        if source := _first(row.at(path) for row in rows):
            return source
        if not path.is_dir():
            check_regular(path, f"a folder, or a file of a known kind ({', '.join(forms())})")
        raise InputError(f"{path}: not a directory, nor a file of a known kind ({', '.join(forms())})")
    if isinstance(spec, Path) or os.sep in text or path.suffix:
        raise InputError(f"{text}: no such file or folder")
    raise unknown("data set", text, [*KNOWN, *forms()])


def _rows() -> list[SourceRow]:
    return sorted(_REGISTRY.rows(), key=lambda row: row.order)


def _first(found: Iterable[Source | None]) -> Source | None:
    return next((source for source in found if source is not None), None)

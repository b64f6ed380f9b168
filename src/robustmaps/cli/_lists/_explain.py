"""``robustmaps explain``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro
from rich.markdown import Markdown

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.reading.pages import page, pages
from robustmaps.engine.tables import table

DESCRIPTION = """Print a page of the documentation, for instance that of a warning: robustmaps explain zero-gradients.
Without a name, list the pages. They come with the package, so this works offline."""


@dataclass(frozen=True)
class Arguments:
    """Options of the pages.

    Attributes:
        page: name of a check, a warning or any other page, e.g. zero-gradients or theory (default: list them)
        json: print the page, or the list, as one JSON object
    """

    page: tyro.conf.Positional[str | None] = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "explain", DESCRIPTION)
    output = Output(given.json)
    if given.page is not None:
        found = page(given.page)
        output.result({"page": found.name, "text": found.text}, Markdown(found.alone, hyperlinks=False))
        return
    listed = pages().values()
    diagnosis = [(each.name, each.about) for each in listed if each.diagnosis]
    others = [(each.name, each.about) for each in listed if not each.diagnosis]
    output.result(
        {"pages": [{"page": each.name, "about": each.about} for each in listed]},
        table(("check or warning", "question"), diagnosis, words=2, whole=1),
        table(("page", "about"), others, words=2, whole=1),
    )

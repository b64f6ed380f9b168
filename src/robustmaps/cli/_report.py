"""``robustmaps report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from robustmaps.cli._terminal._shared import Output, parse
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """Write the report of a run, or of all runs in a folder: one HTML page that opens from disk and needs no
network, and its tables as Markdown, LaTeX and CSV beside it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the report.

    Attributes:
        folder: a run folder, or a folder that holds runs, such as that of a study.
        out: the folder to write; "report" in the given one if left out. A report that is there is replaced.
        no_pictures: leave out what needs the networks themselves: attacked images, feature maps, gain along the depth.
        device: where these are computed: auto, cpu, cuda, cuda:1 or mps.
        json: print the answer and the files as one JSON object.
    """

    folder: tyro.conf.Positional[Path]
    out: Path | None = None
    no_pictures: bool = False
    device: str = "auto"
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "report", DESCRIPTION)
    from robustmaps.report import report

    with watching() as watch:
        done = report(given.folder, given.out, pictures=not given.no_pictures, device=given.device, watcher=watch)
    page, tables = done.page, done.path.parent / "tables"
    Output(given.json).result(
        {
            "page": str(done.path),
            "runs": done.runs,
            "answer": list(page.answer),
            "warnings": list(page.warnings),
            "tables": {
                listing.name: str(done.path.parent / "tables" / f"{listing.name}.csv") for listing in page.listings()
            },
        },
        *page.answer,
        *(f"Take care: {warning}" for warning in page.warnings),
        f"Page: {done.path}\nTables: {tables}",
    )

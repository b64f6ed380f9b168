"""``robustmaps report``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from robustmaps.cli._terminal._options import Computing
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching
from robustmaps.engine.errors import InputError

DESCRIPTION = """Write the report of a run, or of all runs in a folder: one HTML page that works offline, and
its tables as Markdown, LaTeX and CSV beside it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the report.

    Attributes:
        folder: run folder, or a folder of runs, such as that of a study
        out: folder to write; replaces a report there (default: report, in the given folder)
        columns: columns of the leaderboard in LaTeX, with commas, e.g. configuration,robust,clean (default: all)
        figures: folder for the plots and pictures as PDF and SVG, for a paper; replaces earlier ones (default: none)
        no_pictures: leave out what needs the networks themselves: attacked images, feature maps, gain along the depth
        json: print the answer and the files as one JSON object
    """

    folder: tyro.conf.Positional[Path]
    out: Path | None = None
    columns: str | None = None
    figures: Path | None = None
    no_pictures: bool = False
    computing: Computing = field(default_factory=Computing)
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "report", DESCRIPTION)
    from robustmaps.report import report

    device = given.computing.device
    if given.no_pictures and device != Computing.device:
        raise InputError(f"--device {device}: nothing is computed with --no-pictures; leave one of the two out")
    with watching() as watch:
        done = report(
            given.folder,
            given.out,
            pictures=not given.no_pictures,
            columns=() if given.columns is None else [name.strip() for name in given.columns.split(",")],
            figures=given.figures,
            device=device,
            watcher=watch,
        )
    page, tables = done.page, done.path.parent / "tables"
    Output(given.json).result(
        {
            "page": str(done.path),
            "runs": done.runs,
            "answer": list(page.answer),
            "warnings": list(page.warnings),
            **({"figures": [str(path) for path in done.figures]} if given.figures else {}),
            "tables": {
                listing.name: str(done.path.parent / "tables" / f"{listing.name}.csv") for listing in page.listings()
            },
        },
        *page.answer,
        *(f"Caution: {warning}" for warning in page.warnings),
        f"Page: {done.path}\nTables: {tables}" + (f"\nFigures: {given.figures}" if given.figures else ""),
    )

"""``robustmaps runs``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, tell
from robustmaps.config import RunConfig, fraction_keys
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import SHOWN_OF_HASH
from robustmaps.engine.numbers import as_fraction, counted, human
from robustmaps.engine.tables import table

DESCRIPTION = """List runs, such as those of a study, by name. Conditions compare columns:
--where 'defense=at and robust>40%'. Columns are the options of train and: name, status (finished, running, stopped,
failed, evaluated), clean, robust, and their 95 % intervals clean_low, clean_high, robust_low, robust_high; images,
attack, validation_clean, validation_robust, best_epoch, epochs_done, seconds, flops, parameters, evaluation, folder.
The table shows the options that differ between the runs."""


@dataclass(frozen=True)
class Arguments:
    """Options of the list.

    Attributes:
        folder: folder of runs
        where: condition on the runs: comparisons (= != < <= > >=) joined by and, or and brackets (default: all runs)
        sort: column to sort by, -column for descending order (default: name)
        columns: columns that the table shows, with commas (default: those that differ between the runs)
        evaluation: evaluation to show for each run, by its file's name, e.g. 'autoattack*' (default: the worst one at
            the run's own budget with the most images)
        format: format of the list
        csv: print the list as CSV, as --format csv does
        json: print the list as one JSON object, as --format json does
    """

    folder: tyro.conf.Positional[Path] = Path("runs")
    where: str | None = None
    sort: str | None = None
    columns: str | None = None
    evaluation: str | None = None
    format: Literal["table", "csv", "json"] = "table"
    csv: bool = False
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, _joined(arguments), "runs", DESCRIPTION)
    asked = {form for form in ("csv", "json") if getattr(given, form)} | {given.format} - {"table"}
    if len(asked) > 1:
        raise InputError("--csv and --json, or --format: give one of them")
    form = asked.pop() if asked else "table"
    if given.columns is not None and form != "table":
        raise InputError(f"--columns {given.columns}: {form} has all columns; leave --columns out")
    from robustmaps.runs import RUN_COLUMNS, differing, list_runs, read_runs

    skipped: list[str] = []
    unreadable: list[dict[str, str]] = []
    records = read_runs(
        given.folder,
        skipped=lambda path, reason: skipped.append(f"{path}: skipped, {reason}"),
        unreadable=lambda path, reason: unreadable.append({"path": str(path), "reason": reason}),
    )
    damage = [_unreadable(each) for each in unreadable]
    rows = list_runs(records, where=given.where, sort=given.sort, evaluation=given.evaluation)
    chosen = None if given.columns is None else [name.strip().replace("-", "_") for name in given.columns.split(",")]
    keys = differing(rows, chosen)
    for line in skipped if form == "table" else [*skipped, *damage]:
        tell(f"robustmaps: warning: {line}")
    if form == "json":
        print(json.dumps({"runs": rows, "skipped": skipped, "unreadable": unreadable}, allow_nan=False))
        return
    if form == "csv":
        cells = [["" if row[name] is None else row[name] for name in RUN_COLUMNS] for row in rows]
        print(table(RUN_COLUMNS, cells).to_csv(), end="")
        return
    figures = [] if chosen else ["clean", "robust", "seconds", "flops"]
    columns = list(dict.fromkeys(["name", *keys, "status", *figures]))
    cells = [[_cell(name, row[name]) for name in columns] for row in rows]
    count = f"{len(rows)} of {counted(len(records), 'run')}" if given.where else counted(len(rows), "run")
    listed = table(columns, cells, words=len(columns) - len(figures))
    Output(False).result({}, listed, "\n".join([f"{count} in {given.folder}", *damage]))


def _unreadable(each: Mapping[str, str]) -> str:
    """One line; reasons often begin with the path."""
    reason = " ".join(each["reason"].removeprefix(f"{each['path']}: ").split())
    return f"{each['path']}: unreadable: {reason}"


def _joined(arguments: Sequence[str]) -> list[str]:
    """``--sort -robust`` as one word; tyro would read two options."""
    words = iter(arguments)
    return [f"{word}={next(words, '')}" if word == "--sort" else word for word in words]


def _cell(name: str, value: Any) -> str:
    from robustmaps.runs import SHARES

    if value is None:
        return ""
    if name.endswith("_sha256"):
        return str(value)[:SHOWN_OF_HASH]
    if name in SHARES:
        return f"{100 * value:.1f} %"
    if name in fraction_keys(RunConfig):
        return as_fraction(value)
    if name == "seconds":
        return f"{value:.0f} s"
    if name in ("flops", "parameters"):
        return human(value, "FLOP" if name == "flops" else "")
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Ready studies on the command line."""

from pathlib import Path

from robustmaps.cli._terminal._shared import Output, stop_on_signal, tell
from robustmaps.cli._terminal._watch import watching
from robustmaps.cli._verbs._sweep import plan_line, plan_texts, showing
from robustmaps.config import ReadyStudy, Scale, ready_studies
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.numbers import human
from robustmaps.engine.tables import table

_NUMBERS = """Numbers such as table-2 are of this list; those in the paper are not known here.
Operations are counted, evaluations as if every image withstood every attack. The small version (--scale cpu) is on
embedded data and ends in minutes; it is not a reproduction."""


def list_ready(output: Output) -> None:
    """Print the ready studies."""
    studies = ready_studies().values()
    runs = {each.name: [len(each.study(scale).points) for scale in ("full", "cpu")] for each in studies}
    rows = [
        (
            each.name,
            each.also,
            each.title,
            *(
                str(value)
                for count, scale in zip(runs[each.name], ("full", "cpu"), strict=True)
                for value in (count, human(each.operations[scale], "FLOP"))
            ),
        )
        for each in studies
    ]
    columns = ("study", "or", "what it shows", "runs, full", "operations", "runs, cpu", "operations")
    values = [
        {
            "name": each.name,
            "also": each.also,
            "title": each.title,
            "about": each.about,
            "runs": dict(zip(("full", "cpu"), runs[each.name], strict=True)),
            "flops": dict(each.operations),
        }
        for each in studies
    ]
    output.result({"studies": values}, table(columns, rows, words=3), _NUMBERS)


def make_ready(
    ready: ReadyStudy,
    scale: Scale,
    out: Path,
    output: Output,
    *,
    data: str | None,
    corruptions: Path | None,
    jobs: int | None,
    dry_run: bool,
    called: str,
) -> None:
    """Make the runs of a ready study that are missing, and render it.

    Raises:
        InputError: its images or folder of corruptions are missing or do not fit, or other files are in the way.
        RunsFailed: a run failed.
    """
    from robustmaps.data import open_corruptions
    from robustmaps.report import claim_ready, report_ready
    from robustmaps.studies import RunsFailed, plan_ready, sweep

    if corruptions is not None:
        open_corruptions(corruptions)
    plan = plan_ready(ready, scale, out, data=data, jobs=jobs, dry=dry_run)
    name = f"{ready.name}: {ready.title}"
    about = [name if called == ready.name else f"{called} is {name} (numbered as in robustmaps reproduce --list)"]
    if scale == "cpu":
        about.append("A small version on embedded data, not a reproduction.")
    if dry_run:
        output.result({**plan.to_dict(), "scale": scale}, *about, *plan_texts(plan))
        return
    claim_ready(plan, ready)
    for line in (*about, *(f"Note: {note}" for note in plan.notes), plan_line(plan)):
        tell(line)
    with stop_on_signal() as should_stop, showing() as show:
        try:
            result = sweep(plan, watcher=show, should_stop=should_stop)
        except Interrupted as place:
            raise Interrupted(f"{place}; the same command continues from here") from None
    if result.failed:
        raise RunsFailed.of(result.failed)
    with watching() as watch:
        try:
            shown, report = report_ready(plan, ready, scale, corruptions=corruptions, watcher=watch)
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command continues from here") from None
    tables = report.path.parent / "tables"
    written = [*(tables / f"{ready.name}.{ending}" for ending in ("md", "tex", "csv")), report.path]
    if shown.picture is not None:
        written.insert(0, plan.out / shown.picture)
    listed = "\n".join(f"  {path}" for path in written)
    output.result(
        {
            **result.to_dict(),
            "study": ready.name,
            "scale": scale,
            "reproduction": shown.caution is None,
            "caution": shown.caution,
            "table": shown.to_dict()["table"],
            "page": str(report.path),
            "files": [str(path) for path in written],
        },
        shown.title,
        shown.table,
        shown.table.caption,
        *([shown.caution] if shown.caution else []),
        f"Written:\n{listed}",
    )

"""``robustmaps sweep``."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Group
from rich.live import Live
from rich.text import Text

from robustmaps.cli._terminal._executor import Execution, shares
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, rich_table, stop_on_signal, tell
from robustmaps.cli._terminal._watch import DAYS_FROM_S, clock, live
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.numbers import counted, human, in_words
from robustmaps.engine.tables import percent_cell, table
from robustmaps.engine.text import shell, visible

if TYPE_CHECKING:
    from robustmaps.studies import PlannedRun, Statistics, SweepPlan, SweepResult, SweepState

DESCRIPTION = """Make all runs of a study: a YAML file with axes (any option of train; keys that belong together as a
list of mappings), fixed, exclude and evaluation. No run is made twice: the same command continues after a stop, a kill
or a failed run. robustmaps explain studies shows a file."""

_PLAIN_EVERY_S = 30.0


@dataclass(frozen=True)
class Arguments:
    """Options of the sweep.

    Attributes:
        study: YAML file of the study
        out: folder of the runs (default: beside the file, with its name)
        jobs: runs at once (default: a core each, at most eight; one where a GPU does the work)
        threads: threads of each run (default: an even share of the cores, at most OMP_NUM_THREADS)
        dry_run: show what would be made and what it costs, and write nothing
        json: print the result as one JSON object
    """

    study: tyro.conf.Positional[Path]
    out: Path | None = None
    jobs: int | None = None
    threads: int | None = None
    execution: Execution = field(default_factory=Execution)
    dry_run: bool = False
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "sweep", DESCRIPTION)
    from robustmaps.config import needs_trust, read_study
    from robustmaps.engine.numbers import check_whole
    from robustmaps.networks import Resolver
    from robustmaps.runs import read_run
    from robustmaps.studies import RunsFailed, plan_sweep, statistics_by_part, sweep

    for name in ("jobs", "threads"):
        if getattr(given, name) is not None:
            check_whole(name, getattr(given, name), 1)
    executor = given.execution.on_cluster(given.jobs, given.threads)
    resolver = Resolver()
    study = read_study(given.study, resolver.complete)
    out = given.out or given.study.with_suffix("")
    shared = shares(executor, given.jobs, given.threads)
    plan = plan_sweep(study, out, **shared, resolver=resolver, dry=given.dry_run)
    output = Output(given.json)
    if given.dry_run:
        output.result(plan.to_dict(), *plan_texts(plan))
        return
    tell(plan_line(plan))
    for note in plan.notes:
        tell(f"note: {note}")
    with stop_on_signal() as should_stop, showing() as show:
        try:
            result = sweep(plan, executor=executor, watcher=show, should_stop=should_stop)
        except Interrupted as place:
            raise Interrupted(f"{place}; the same command continues from here") from None
    folders = [run.folder for run in plan.runs if run.folder not in result.failed]
    found = statistics_by_part([read_run(folder) for folder in folders], plan.out) if folders else ()
    allowed = ["--allow-code"] * any(needs_trust(run.point.config) for run in plan.runs)
    texts = [text for part in found for text in _statistics_texts(part)]
    output.result(
        {**result.to_dict(), "statistics": [part.to_dict() for part in found]}, *texts, *_result_texts(result, allowed)
    )
    if result.failed:
        raise RunsFailed.of(result.failed)


def plan_texts(plan: "SweepPlan") -> list[object]:
    """What is missing and what it costs."""
    keys = [key for key in plan.study.keys if key != "seed" and len({_value(run, key) for run in plan.runs}) > 1]
    groups: dict[tuple[str, ...], list[PlannedRun]] = {}
    for run in plan.runs:
        groups.setdefault(tuple(_value(run, key) for key in keys), []).append(run)
    rows = []
    for values, runs in groups.items():
        missing = [run.estimate for run in runs if not run.done]
        known = [estimate.seconds for estimate in missing if estimate.seconds is not None]
        cost = (
            human(flops, "FLOP") if (flops := sum(estimate.flops for estimate in missing)) else "",
            clock(sum(known)) if known and len(known) == len(missing) else "",
        )
        rows.append((*values, str(len(runs)), str(len(missing)), *cost))
    columns = (*(key.replace("_", " ") for key in keys), "runs", "missing", "operations", "time")
    listed = table(columns, rows, words=len(keys))
    measured = " and ".join(
        dict.fromkeys(run.estimate.measured for run in plan.missing if run.estimate.seconds is not None)
    )
    unknown = any(run.estimate.evaluation_flops is None and run.estimate.image_flops for run in plan.runs)
    return [
        listed,
        plan_line(plan),
        "Operations are counted; evaluations as if every image withstood every attack, so they take less.",
        *([f"Times are estimated from {measured}, with the start of runs and processes."] if measured else []),
        *(["The steps of some attacks are not known; their evaluations are not counted."] if unknown else []),
        *(f"Note: {note}" for note in plan.notes),
    ]


def _value(run: "PlannedRun", key: str) -> str:
    return in_words(run.point.values[key]) if key in run.point.values else "-"


def plan_line(plan: "SweepPlan") -> str:
    """The same in a line."""
    missing = len(plan.missing)
    if not missing:
        return f"All {len(plan.runs)} runs are in {plan.out}."
    hours = ""
    if plan.seconds is not None:
        short = plan.seconds < 3600 or plan.seconds >= DAYS_FROM_S
        hours = f", about {clock(plan.seconds) if short else f'{plan.seconds / 3600:.1f} h'}"
    return (
        f"{missing} of {len(plan.runs)} runs to make in {plan.out}: {human(plan.flops, 'FLOP')}{hours}, "
        f"{plan.jobs} at once with {counted(plan.threads, 'thread')} each."
    )


def _statistics_texts(found: "Statistics") -> list[object]:
    """A row per configuration, with a column for each evaluation at the same budget on the same images."""
    columns = [found.yardstick] if found.yardstick is not None and not found.columns else list(found.columns)
    lone = all(each.deviations[1] is None for each in found.compared)
    rows = []
    for each in found.compared:
        rates = found.columns or {columns[0]: {each.name: each.robust}}
        rows.append(
            (
                each.name,
                str(len(each.evaluated)),
                percent_cell(each.clean),
                *(percent_cell(rates[stick][each.name]) if each.name in rates[stick] else "" for stick in columns),
                *([] if lone else ["" if each.deviations[1] is None else f"{100 * each.deviations[1]:.1f}"]),
            )
        )
    if not rows or found.yardstick is None:
        return []
    titles = [f"{stick.title} [95 %]" for stick in columns] if found.columns else ["robust [95 %]"]
    listed = table(("configuration", "seeds", "clean [95 %]", *titles, *([] if lone else ["sd"])), rows, words=1)
    above = [found.title] if found.title else []
    deviation = "" if lone else "; sd: its standard deviation between seeds, in points"
    under = f"Robust accuracy: {found.yardstick.text}{deviation}."
    return [*above, listed, under, *found.sentences(), *(f"Note: {note}" for note in found.notes)]


def _result_texts(result: "SweepResult", allowed: Sequence[str]) -> list[object]:
    counts = f"{len(result.made)} made in {clock(result.seconds)}, {result.before} existed, {len(result.failed)} failed"
    report, runs = (shell("robustmaps", verb, result.out, *allowed) for verb in ("report", "runs"))
    return [f"{counts}. Runs: {result.out}", f"Next: {report}, or {runs}"]


class SweepDisplay:
    """Shows a sweep: a live table on a terminal, plain lines elsewhere.

    Args:
        live: the display; None for plain lines.
    """

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._last = time.monotonic()

    def __call__(self, state: "SweepState") -> None:
        """Show the state."""
        for text in state.warnings:
            line = f"robustmaps: warning: {text}"
            tell(line) if self._live is None else self._live.console.print(Text(visible(line)))
        if self._live is None:
            now = time.monotonic()
            if state.event is not None or now - self._last >= _PLAIN_EVERY_S:
                self._last = now
                event = [] if state.event is None else [state.event]
                tell("; ".join([_head(state), *event]))
            return
        if state.event is not None:
            self._live.console.print(Text(visible(state.event)))
        rows = [
            (title, progress.phase, f"{progress.done}/{progress.total} {progress.unit}", clock(progress.remaining_s))
            for title, progress in state.running.items()
        ]
        tables = [rich_table(table(("running", "at", "", "left"), rows, words=2))] if rows else []
        self._live.update(Group(Text(visible(_head(state))), *tables))


@contextmanager
def showing() -> Iterator[SweepDisplay]:
    """A live display on a terminal, plain lines elsewhere."""
    with live() as display:
        yield SweepDisplay(display)


def _head(state: "SweepState") -> str:
    parts = [f"{state.done}/{state.total} runs done", f"{len(state.running)} running", f"{state.failed} failed"]
    if state.best is not None:
        parts.append(f"best {100 * state.best[1]:.1f} % robust ({state.best[0]})")
    if state.remaining_s is not None and state.done + state.failed < state.total:
        parts.append(f"about {clock(state.remaining_s)} left")
    return ", ".join(parts)

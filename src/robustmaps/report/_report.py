"""Write the report of a run, or of a folder of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustmaps.config import STUDY, asked_for
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least, counted, human
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.writing.outputs import LOCK, alone
from robustmaps.evaluation import Comparison
from robustmaps.report._blocks import Chart, Fact, Facts, Listing, Page, Part, Section
from robustmaps.report._figures import claim_figures, write_figures
from robustmaps.report._writing import claim_report, write_report
from robustmaps.report.charts._paper import COLUMN_IN, NARROWEST_IN
from robustmaps.report.sections._leaderboard import LEADERBOARD
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import sections
from robustmaps.runs import RunRecord, is_result_folder, read_run, read_runs
from robustmaps.studies import Statistics, Variant, statistics_by_part

_FAILURES = 5
"""The number of failed runs whose reason is reported."""


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        page: its contents.
        path: the file of the page.
        runs: number of runs.
        figures: the PDF files of its plots and pictures, if they were asked for.
    """

    page: Page
    path: Path
    runs: int
    figures: tuple[Path, ...] = ()


def report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    pictures: bool = True,
    columns: Sequence[str] = (),
    figures: str | Path | None = None,
    figure_width_in: float = COLUMN_IN,
    device: str = "auto",
    watcher: Watcher = ignore,
) -> Report:
    """Write the report of a run, or of all runs in a folder.

    Args:
        folder: a run folder, a folder of runs, or a study's YAML file; of a study, only its listed runs are used.
        out: folder of the report (default: ``report`` in that folder); an existing report is replaced.
        pictures: also open the best network and its reference, attack a few images and show their maps.
        columns: of the leaderboard in LaTeX, in this order; all if empty. Units may be left out of the names.
        figures: folder for the plots and pictures as PDF and SVG for a paper; None for none.
        figure_width_in: the width of each in inches; the column of a paper by default.
        device: device for the pictures.
        watcher: receives progress reports.

    Raises:
        InputError: the folder does not exist or contains no runs, other files are in the way of the report, another
            process is writing it, or the leaderboard has no such column.
    """
    root = Path(folder)
    if root.suffix in (".yaml", ".yml") and root.is_file():
        root = root.with_suffix("")  # the folder of that study's runs
    target = Path(out) if out is not None else root / "report"
    claim_report(target)
    if figures is not None:
        check_at_least("figure_width_in", figure_width_in, NARROWEST_IN)
        claim_figures(figures)
    single = is_result_folder(root)
    notes: list[str] = []

    def note(path: Path, reason: str) -> None:
        notes.append(f"{path.relative_to(root)}: {reason}")

    def damage(path: Path, reason: str) -> None:
        note(path, f"unreadable: {reason.removeprefix(f'{path}: ')}")

    runs = (
        [read_run(root, skipped=note, unreadable=damage)]
        if single
        else list(read_runs(root, skipped=note, unreadable=damage))
    )
    if not runs:
        reasons = "".join(f"\n  {text}" for text in notes)
        raise InputError(f"{root}: no runs; expected a run folder or a folder of runs{reasons}")
    asked = None
    try:
        asked = None if single else asked_for(root)
    except InputError as error:
        notes.append(str(error))
    if asked is not None and (mine := [run for run in runs if run.name in asked]):
        if len(mine) < len(runs):
            notes.append(f"{counted(len(runs) - len(mine), 'run')} in the folder that {root / STUDY} does not list")
        runs = mine
    with alone(target / LOCK, "writing this report"):
        page = _page(statistics_by_part(runs, root), single, pictures, device, watcher)
        page = replace(page, warnings=(*page.warnings, *notes))
        page = replace(page, parts=tuple(_with_columns(part, columns) for part in page.parts)) if columns else page
        path = write_report(target, page)
    drawn = () if figures is None else write_figures(figures, page, figure_width_in)
    return Report(page, path, len(runs), drawn)


def _page(studies: Sequence[Statistics], single: bool, pictures: bool, device: str, watcher: Watcher) -> Page:
    several = len(studies) > 1
    written = [
        _part(study, f"part{number}-" if several else "", pictures, device, watcher)
        for number, study in enumerate(studies, 1)
    ]
    warnings = [warning for _, found in written for warning in found]
    runs = [run for study in studies for run in study.runs]
    return Page(
        title=studies[0].folder.resolve().name,
        kind=_kind(studies, single),
        parts=tuple(part for part, _ in written),
        footer=_footer(runs),
        warnings=(*dict.fromkeys(warnings), *_unfinished(runs)),
    )


def _part(
    study: Statistics, prefix: str, pictures: bool, device: str, watcher: Watcher
) -> tuple[Part, tuple[str, ...]]:
    found, suspicions = sections(Material(study, pictures, device, watcher))
    parts = tuple(_within(prefix, section) for section in found)
    return Part(study.title, answer(study), Facts(_facts(study)), parts), (*_warnings(study), *suspicions)


def _within(prefix: str, section: Section) -> Section:
    """The section with names prefixed by its part."""
    blocks = tuple(
        replace(block, name=f"{prefix}{block.name}") if isinstance(block, Listing | Chart) else block
        for block in section.blocks
    )
    return replace(section, name=f"{prefix}{section.name}", blocks=blocks)


def _with_columns(part: Part, columns: Sequence[str]) -> Part:
    """The part whose leaderboard has these columns in LaTeX."""

    def chosen(section: Section) -> Section:
        blocks = []
        for block in section.blocks:
            if isinstance(block, Listing) and block.name.endswith(LEADERBOARD):
                block.table.only(columns)  # refuses others before anything is written
                block = replace(block, latex=tuple(columns))
            blocks.append(block)
        return replace(section, blocks=tuple(blocks))

    return replace(part, sections=tuple(map(chosen, part.sections)))


def answer(study: Statistics) -> tuple[str, ...]:
    """The best configuration, its gain, uncertainty and cost; no stronger than the data."""
    best, reference = study.best, study.reference
    if study.yardstick is None or not best.evaluated:
        return ("No run has been evaluated yet.",)
    robust = best.robust
    size = f"{counted(len(best.evaluated), 'seed')} x {study.yardstick.count:,} images"
    extent = f"95 % interval {100 * robust.low:.1f} to {100 * robust.high:.1f}, {size}"
    share = f"{100 * robust.value:.1f} % of the {study.yardstick.kind} withstand {study.yardstick.short} ({extent})"
    if len(study.compared) == 1:
        return (f"With {best.name}, {share}.",)
    of = f"of {len(study.compared)} configurations: {share}"
    if study.best_is_shown:
        sentences = [f"{best.name} is the most robust {of}."]
    else:
        sentences = [f"{best.name} has the highest robust accuracy {of}; its lead is within chance."]
    gain = _gain(study)
    if gain is not None and reference is not None:
        sentences.append(f"{gain.as_sentence()[:-1]}{_at_cost(best, reference)}.")
    lead = study.lead
    if lead is not None and (gain is None or {lead.a, lead.b} != {gain.a, gain.b}):
        sentences.append(lead.as_sentence())
    return tuple(sentences)


def _gain(study: Statistics) -> Comparison | None:
    """The comparison of the best configuration with its reference."""
    names = [study.best.name, *([study.reference.name] if study.reference else [])]
    return next((study.gains[name] for name in names if name in study.gains), None)


def _at_cost(one: Variant, other: Variant) -> str:
    if one.cost is None or other.cost is None:
        return ""
    times = f"{one.cost.flops / other.cost.flops:.3g} times"
    return f"; for one image, {one.name} takes {times} the operations of {other.name}"


def _facts(study: Statistics) -> tuple[Fact, ...]:
    best, reference = study.best, study.reference
    facts = [Fact("Most robust" if len(study.compared) > 1 else "Network", best.name)]
    if study.yardstick is not None and best.evaluated:
        robust, clean = best.robust, best.clean
        facts.append(Fact("Robust accuracy", f"{100 * robust.value:.1f} %", _interval(*robust.interval)))
        facts.append(Fact("Clean accuracy", f"{100 * clean.value:.1f} %", _interval(*clean.interval)))
        gain = _gain(study)
        if gain is not None:
            seen = gain if gain.b == best.name else gain.flipped()
            detail = f"{_interval(*seen.interval, sign='+')} of robust accuracy"
            facts.append(Fact(f"Against {seen.a}", f"{100 * seen.value:+.1f} points", detail))
    if best.cost is not None:
        detail = f"{human(best.cost.parameters)} parameters"
        if reference is not None and reference.cost is not None:
            detail = f"x {best.cost.flops / reference.cost.flops:.3g} of {reference.name}; {detail}"
        facts.append(Fact("Forward pass", human(best.cost.flops, "FLOP"), detail))
    return tuple(facts)


def _interval(low: float, high: float, sign: str = "") -> str:
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _warnings(study: Statistics) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for variant in study.compared:
        for evaluation in variant.evaluated.values():
            for warning in evaluation.warnings:
                said.setdefault(warning, []).append(variant.name)
    found = []
    for warning, said_of in said.items():
        names = dict.fromkeys(said_of)
        found.append(warning if len(names) == len(study.compared) else f"{warning} ({', '.join(names)})")
    return (*found, *(f"{note[0].upper()}{note[1:]}." for note in study.notes))


def _unfinished(runs: Sequence[RunRecord]) -> list[str]:
    # The first line is the reason, the rest is the traceback.
    failed = [(run.name, (run.error or "").strip().partition("\n")[0]) for run in runs if run.status == "failed"]
    found = [f"{name} failed: {reason}" for name, reason in failed[:_FAILURES]]
    for status in ("failed", "stopped", "running"):
        count = sum(run.status == status for run in runs)
        if count:
            be = "" if status == "failed" else "is " if count == 1 else "are "
            found.append(f"{counted(count, 'run')} of {len(runs)} {be}{status}.")
    return found


def _kind(studies: Sequence[Statistics], single: bool) -> str:
    if single:
        return "Report of a run"
    variants, runs = (sum(len(getattr(study, what)) for study in studies) for what in ("variants", "runs"))
    parts = f" in {len(studies)} parts with different images or attacks" if len(studies) > 1 else ""
    return f"Report of a study: {counted(variants, 'configuration')}, {counted(runs, 'run')}{parts}"


def _footer(runs: Sequence[RunRecord]) -> str:
    versions = sorted(
        {f"robustmaps {run.environment['robustmaps']}" for run in runs if "robustmaps" in run.environment}
    )
    return f"Computed with {', '.join(versions)}." if versions else ""

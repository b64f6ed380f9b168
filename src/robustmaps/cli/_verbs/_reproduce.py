"""``robustmaps reproduce``."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._ready import list_ready, make_ready
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import Scale, find_ready
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.tables import table

DESCRIPTION = """Make a run again from its configuration, evaluate it again, and compare figures, weights and verdicts.
With the same software on the same CPU they are the same bit for bit; exit code 1 if anything differs. Or make a ready
study, a table or figure of the paper: --list lists them; --scale full follows the published protocol, and --scale cpu
is a small version on embedded data, not a reproduction. A path that exists is a run. The same command continues a
study."""

_OF_STUDIES = ("scale", "data", "corruptions", "jobs", "dry_run")


@dataclass(frozen=True)
class Arguments:
    """Options of the reproduction.

    Attributes:
        what: run folder, or a ready study such as strides or table-2
        list: list the ready studies with their runs and cost
        scale: size of a ready study: full, or cpu for minutes on embedded data
        data: images of a full study, such as an archive of CIFAR-10 (default: those of its recipes)
        corruptions: folder of CIFAR-10-C, for the full study of corrupted images
        jobs: runs of a study at once (default: a core each, at most eight; one where a GPU does the work)
        dry_run: show what a study would make and what it costs, and write nothing
        out: folder that receives the new run, or the study's folder
        epochs: number of first epochs of a run to make again and compare, without evaluations (default: all)
        json: print the result as one JSON object
    """

    what: tyro.conf.Positional[str | None] = None
    list: bool = False
    scale: Scale | None = None
    data: str | None = None
    corruptions: Path | None = None
    jobs: int | None = None
    dry_run: bool = False
    out: Path = Path("reproduced")
    epochs: int | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "reproduce", DESCRIPTION)
    if given.list:
        _refuse(given, [item.name for item in fields(Arguments) if item.name not in ("list", "json")], "--list")
        list_ready(Output(given.json))
    elif given.what is None:
        raise InputError("expected a run folder or a ready study, such as strides; robustmaps reproduce --list")
    elif _is_run(given.what):
        _refuse(given, _OF_STUDIES, f"{given.what} is a run folder, no ready study")
        _again(given, Path(given.what))
    else:
        _study(given)


def _is_run(what: str) -> bool:
    return Path(what).exists() or "/" in what


def _refuse(given: Arguments, names: Sequence[str], why: str) -> None:
    """Options that would be without effect are a misunderstanding."""
    changed = [name for name in names if getattr(given, name) != getattr(Arguments(), name)]
    if changed:
        listed = ", ".join(str(given.what) if name == "what" else f"--{name.replace('_', '-')}" for name in changed)
        raise InputError(f"{why}; leave out {listed}")


def _study(given: Arguments) -> None:
    ready = find_ready(str(given.what))
    _refuse(given, ["epochs"], f"{given.what} is a ready study")
    if given.scale is None:
        raise InputError(f"{given.what}: give --scale cpu for a small version, or --scale full")
    if given.jobs is not None:
        check_whole("jobs", given.jobs, 1)
    if given.corruptions is not None and (ready.shows != "corruptions" or given.scale == "cpu"):
        raise InputError(f"--corruptions {given.corruptions}: only the full study corruptions takes it; leave it out")
    if given.corruptions is None and ready.shows == "corruptions" and given.scale == "full" and not given.dry_run:
        raise InputError(f"{ready.name}: give --corruptions, the folder of CIFAR-10-C")
    make_ready(
        ready,
        given.scale,
        given.out,
        Output(given.json),
        data=given.data,
        corruptions=given.corruptions,
        jobs=given.jobs,
        dry_run=given.dry_run,
        called=str(given.what),
    )


def _again(given: Arguments, folder: Path) -> None:
    from robustmaps.runs import NotReproduced, reproduce

    with watching() as watch:
        done = reproduce(folder, given.out, epochs=given.epochs, watcher=watch)
    texts: list[object] = [done.sentence()]
    rows = [
        (each.name, each.recorded.robust_accuracy, each.again.robust_accuracy, each.different, each.comparison or "")
        for each in done.evaluations
        if each.again is not None
    ]
    if rows:
        texts.append(table(("evaluation", "recorded", "again", "verdicts that differ", "difference"), rows))
    if done.environment:
        texts.append(table(("environment", "recorded", "now"), done.environment, words=3))
    Output(given.json).result(done.to_dict(), *texts, f"New run: {done.folder}")
    if not done.identical:
        raise NotReproduced(f"{done.recorded.name} was not reproduced bit for bit")

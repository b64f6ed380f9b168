"""Render a ready study: its own table and figure, then the page on its runs."""

from collections.abc import Callable, Mapping
from pathlib import Path

from robustmaps.config import READY, ReadyStudy, Scale
from robustmaps.engine.files import write_json
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.writing.outputs import claim, is_picture
from robustmaps.report._report import Report, report
from robustmaps.report._writing import claim_report
from robustmaps.report.ready import _accuracy, _measured
from robustmaps.report.ready._made import Made, Rendered
from robustmaps.report.sections._ready import ReadyResult
from robustmaps.studies import SweepPlan, claim_study

_RENDERERS: Mapping[str, Callable[[Made], Rendered]] = {
    "accuracy": _accuracy.accuracy,
    "curve": _accuracy.curve,
    "cost": _accuracy.cost,
    "transfer": _measured.transfer,
    "corruptions": _measured.corruptions,
    "plane": _measured.plane,
}


def claim_ready(plan: SweepPlan, ready: ReadyStudy) -> None:
    """Refuse a folder in which other files are in the way, before the work.

    Raises:
        InputError: one of the files is not ours.
    """
    claim_study(plan, plan.out / READY)
    claim(_picture(plan, ready), ours=is_picture)
    claim_report(plan.out / "report")


def report_ready(
    plan: SweepPlan,
    ready: ReadyStudy,
    scale: Scale,
    *,
    corruptions: str | Path | None = None,
    watcher: Watcher = ignore,
) -> tuple[ReadyResult, Report]:
    """Render a ready study whose runs are made: ``ready.json`` and the figure in its folder, and the page.

    Args:
        plan: its plan; all runs are finished.
        ready: the study.
        scale: full or small.
        corruptions: a folder in the form of CIFAR-10-C; the small version corrupts its own images.
        watcher: receives progress reports.

    Raises:
        InputError: the folder of corruptions does not fit, or other files are in the way.
    """
    made = Made(ready, scale, plan, None if corruptions is None else Path(corruptions), watcher)
    rendered = _RENDERERS[ready.shows](made)
    picture = _picture(plan, ready)
    if rendered.draw is not None:
        rendered.draw(picture)
    result = ReadyResult(
        ready.name,
        ready.also,
        scale,
        made.title,
        ready.about,
        rendered.table,
        None if rendered.draw is None else picture.name,
        rendered.caption,
        plan.notes,
    )
    write_json(plan.out / READY, result.to_dict())
    return result, report(plan.out, watcher=watcher)


def _picture(plan: SweepPlan, ready: ReadyStudy) -> Path:
    return plan.out / f"{ready.name}.png"

"""Images broken by the attacks, and accuracy against the radius."""

import json

from robustmaps.engine.text import shell
from robustmaps.evaluation import Evaluation, shown_names
from robustmaps.report._blocks import Block, Missing
from robustmaps.report.charts._accuracy import radius_chart
from robustmaps.report.charts._verdicts import cascade_chart
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import MOST_LINES, not_evaluated, some_only
from robustmaps.runs import Yardstick
from robustmaps.studies import Statistics, bounded

_WRONG = "wrong, clean"
_MOST_ROWS = 20
_Series = tuple[str, str, str, str | None]
"""Norm, settings of the attacks and images of evaluations that differ in eps."""


def attacks(material: Material) -> list[Block]:
    """Accuracy against the radius, and the images broken by each attack."""
    study = material.study
    blocks: list[Block] = []
    if study.yardstick is not None:
        blocks += _cascade(study, study.yardstick)
    curve = _radius(study)
    run = study.best.runs[0]
    options = ["--attack", "apgd-ce,square", "--eps", "2/255,4/255,8/255", *permission(run)]
    command = shell("robustmaps", "evaluate", run.folder, *options)
    blocks += curve or [Missing("No curve of robust accuracy over eps yet. To make one, give several radii:", command)]
    if study.yardstick is None:
        blocks.append(not_evaluated(study))
    return blocks


def _cascade(study: Statistics, yardstick: Yardstick) -> list[Block]:
    rows = []
    for variant in (v for v in study.shown(_MOST_ROWS) if v.evaluated):
        mine = variant.evaluated.values()
        shown = shown_names(json.loads(yardstick.attacks), titled=True)
        every = [shown.get(verdict, verdict) for evaluation in mine for verdict in evaluation.verdicts]
        kinds = ["robust", *shown.values(), "wrong"]
        shares = [(_WRONG if kind == "wrong" else kind, every.count(kind) / len(every)) for kind in kinds]
        rows.append((variant.name, shares))
    return [*some_only(len(rows), len(study.compared)), cascade_chart(rows, yardstick.text, alone=yardstick.alone)]


def _radius(study: Statistics) -> list[Block]:
    """Evaluations that differ only in eps: the series that most configurations have."""
    series: dict[_Series, dict[str, dict[float, list[Evaluation]]]] = {}
    for variant in study.variants:
        for run in variant.runs:
            for evaluation in run.evaluations.values():
                stick = Yardstick.of(evaluation)
                of = (stick.norm, _but_eps(evaluation), stick.images, stick.weights)
                points = series.setdefault(of, {}).setdefault(variant.name, {})
                points.setdefault(stick.eps, []).append(evaluation)
    # A curve needs at least two radii and clean accuracy.
    curves = {key: {n: p for n, p in each.items() if len(p) > 1} for key, each in series.items()}
    if not any(curves.values()):
        return []
    key = max(curves, key=lambda key: (len(curves[key]), sum(map(len, curves[key].values())), key))
    norm, *_ = key
    lines = []
    found = curves[key]
    mine = [v.name for v in study.shown(MOST_LINES) if v.name in found] or list(found)[:MOST_LINES]
    for name, points in ((name, found[name]) for name in mine):
        first = points[min(points)]
        line = [(0.0, bounded(first, "clean_correct"))]
        line += [(eps, bounded(points[eps], "robust_correct")) for eps in sorted(points)]
        lines.append((name, line))
    stick = Yardstick.of(first[0])
    chart = radius_chart(lines, norm, f"{stick.heading}, {stick.count:,} {stick.kind}", study.tints)
    return [*some_only(len(lines), len(found)), chart]


def _but_eps(evaluation: Evaluation) -> str:
    settings = [{k: v for k, v in attack.items() if k != "eps"} for attack in evaluation.attacks]
    return json.dumps([settings, evaluation.seed], sort_keys=True)


ROW = SectionRow(name="attacks", title="Under attack", order=40, blocks=attacks)

"""The sections of a report on training, attacks, classes and diagnoses."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustmaps.engine.measured import Measured
from robustmaps.evaluation import Evaluation
from robustmaps.figures import Cell, Table, table
from robustmaps.report._blocks import Block, Listing, Missing, Text
from robustmaps.report._words import MOST_LINES, NOT_EVALUATED
from robustmaps.report.charts._accuracy import radius_chart
from robustmaps.report.charts._depth import LearningCurve, learning_chart
from robustmaps.report.charts._verdicts import cascade_chart, classes_chart
from robustmaps.report.sections._commands import first_evaluation, shell
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.runs import RunRecord, Yardstick
from robustmaps.studies import Statistics, Variant, bounded

_WRONG = "wrong, clean"
_MOST_CLASSES, _MOST_ROWS = 40, 20
_Series = tuple[str, tuple[str, ...], str, str]
"""Norm, attacks, their other settings and images of evaluations that differ in eps."""
_ROBUST = "validation_robust_accuracy"


def training(material: Material) -> list[Block]:
    """Accuracy over epochs, and whether robust accuracy fell again."""
    study = material.study
    curves = []
    shown = study.shown(MOST_LINES)
    for variant in shown:
        for kind, key in (
            ("validation, robust", _ROBUST),
            ("training, robust", "train_robust_accuracy"),
            ("validation, clean", "validation_clean_accuracy"),
        ):
            curve = _curve(variant, kind, key)
            if curve is not None:
                curves.append(curve)
    falls, sentence = _overfitting(study.variants)
    if not curves:
        return [Missing("No epoch has been finished.", "robustmaps train --resume RUN")]
    blocks = _first(len(shown), len(study.variants))
    blocks.append(learning_chart(curves, sentence, study.tints))
    blocks += [Text(sentence), Listing("overfitting", falls)] if falls.rows else []
    return blocks


def _curve(variant: Variant, kind: str, key: str) -> LearningCurve | None:
    runs = [{r["epoch"]: r[key] for r in run.history if r.get(key) is not None} for run in variant.runs]
    runs = [run for run in runs if run]
    epochs = sorted(set.intersection(*map(set, runs))) if runs else []
    if not epochs:
        return None
    return LearningCurve(variant.name, kind, tuple(epochs), tuple(tuple(run[e] for e in epochs) for run in runs))


def _overfitting(variants: Sequence[Variant]) -> tuple[Table, str]:
    """How far robust validation accuracy fell from its best epoch to the last one; the worst of them in words."""
    rows: list[tuple[str, Cell, Cell, Cell]] = []
    for variant in variants:
        each = [[r[_ROBUST] for r in run.history if r.get(_ROBUST) is not None] for run in variant.runs]
        each = [robust for robust in each if robust]
        if not each:
            continue
        best, last = (100 * float(np.mean([pick(robust) for robust in each])) for pick in (max, lambda r: r[-1]))
        cells = (Cell(f"{best:.1f} %", best), Cell(f"{last:.1f} %", last), Cell(f"{last - best:+.1f}", last - best))
        rows.append((variant.name, *cells))
    columns = ("configuration", "best epoch", "last epoch", "change (points)")
    falls = table(columns, rows, "Robust validation accuracy: mean over runs of the best epoch and of the last")
    if not rows:
        return falls, ""
    name, *_, change = min(rows, key=lambda row: row[3].value or 0.0)
    if not change.value:
        return falls, "No robust overfitting: no configuration's robust validation accuracy fell after its best epoch."
    return falls, (
        f"From the best epoch to the last, robust validation accuracy changed most with {name}: by {change.text} "
        "points. The best of many noisy figures is above the last by a little without any overfitting, too. The "
        "weights of the best epoch are the ones that were kept and evaluated."
    )


def attacks(material: Material) -> list[Block]:
    """Accuracy over the radius, and what broke how many."""
    study = material.study
    blocks: list[Block] = []
    if study.yardstick is not None:
        blocks += _cascade(study, study.yardstick)
    curve = _radius(study)
    folder = study.best.runs[0].folder
    command = shell("robustmaps", "evaluate", folder, "--attack", "apgd-ce,square", "--eps", "2/255,4/255,8/255")
    blocks += curve or [Missing("No curve of robust accuracy over eps. Several radii make one:", command)]
    if study.yardstick is None:
        blocks.append(Missing(NOT_EVALUATED, first_evaluation(study)))
    return blocks


def _first(count: int, total: int) -> list[Block]:
    """What is said where a plot has room for some configurations only."""
    text = f"{count} of {total} configurations: the most robust, and the one that the first is shown beside."
    return [Text(text, "note")] if total > count else []


def _cascade(study: Statistics, yardstick: Yardstick) -> list[Block]:
    rows = []
    for variant in (v for v in study.shown(_MOST_ROWS) if v.evaluated):
        every = [verdict for evaluation in variant.evaluated.values() for verdict in evaluation.verdicts]
        kinds = ["robust", *dict.fromkeys(yardstick.names), "wrong"]
        shares = [(_WRONG if kind == "wrong" else kind, every.count(kind) / len(every)) for kind in kinds]
        rows.append((variant.name, shares))
    return [*_first(len(rows), len(study.compared)), cascade_chart(rows, yardstick.text)]


def _radius(study: Statistics) -> list[Block]:
    """Evaluations that differ in nothing but eps: of all such series the one that most configurations have."""
    series: dict[_Series, dict[str, dict[float, list[Evaluation]]]] = {}
    for variant in study.variants:
        for run in variant.runs:
            for evaluation in run.evaluations.values():
                stick = Yardstick.of(evaluation)
                of = (stick.norm, stick.names, _but_eps(evaluation), stick.images)
                points = series.setdefault(of, {}).setdefault(variant.name, {})
                points.setdefault(stick.eps, []).append(evaluation)
    # Two radii and clean accuracy are the least that makes a curve.
    curves = {key: {n: p for n, p in each.items() if len(p) > 1} for key, each in series.items()}
    if not any(curves.values()):
        return []
    key = max(curves, key=lambda key: (len(curves[key]), sum(map(len, curves[key].values())), key))
    norm, names, *_ = key
    lines = []
    found = curves[key]
    mine = [v.name for v in study.shown(MOST_LINES) if v.name in found] or list(found)[:MOST_LINES]
    for name, points in ((name, found[name]) for name in mine):
        first = points[min(points)]
        line = [(0.0, bounded(first, "clean_correct"))]
        line += [(eps, bounded(points[eps], "robust_correct")) for eps in sorted(points)]
        lines.append((name, line))
    chart = radius_chart(lines, norm, " + ".join(names), study.tints)
    return [*_first(len(lines), len(found)), chart]


def _but_eps(evaluation: Evaluation) -> str:
    settings = [{k: v for k, v in attack.items() if k != "eps"} for attack in evaluation.attacks]
    return json.dumps([settings, evaluation.seed], sort_keys=True)


def classes(material: Material) -> list[Block]:
    """Robust accuracy per class, of the best configuration and the reference."""
    study = material.study
    if study.yardstick is None:
        return [Missing(NOT_EVALUATED, first_evaluation(study))]
    labels, names = material.labels
    if labels is None:
        return [Text("The evaluated images can't be had here, so their classes are unknown.")]
    present = [label for label in range(len(names)) if (labels == label).any()]
    shares = {
        v.name: [_of_class(v, labels, k) for k in present] for v in (study.best, study.reference) if v is not None
    }
    shown = list(range(len(present)))
    blocks: list[Block] = []
    if len(present) > _MOST_CLASSES:
        ranked = sorted(shown, key=lambda n: shares[study.best.name][n].value)
        shown = [*ranked[: _MOST_CLASSES // 2], *ranked[-(_MOST_CLASSES // 2) :]]
        blocks.append(Text(f"The weakest and the strongest of {len(present)} classes.", "note"))
    series = [(name, [each[n] for n in shown]) for name, each in shares.items()]
    labelled = [names[present[n]] for n in shown]
    chart = classes_chart(labelled, series, study.yardstick.short, study.tints)
    return [*blocks, chart]


def _of_class(variant: Variant, labels: NDArray[np.int64], label: int) -> Measured:
    rows = np.flatnonzero(labels == label)
    return bounded(
        [_only(evaluation, rows) for evaluation in variant.evaluated.values()], "robust_correct", student=False
    )


def _only(evaluation: Evaluation, rows: Iterable[int]) -> Evaluation:
    return replace(evaluation, verdicts=tuple(evaluation.verdicts[row] for row in rows))


def diagnostics(material: Material) -> list[Block]:
    """What the checks found."""
    rows = [
        (variant.name, str(run.config.training.seed), found["name"], found["verdict"], found["text"])
        for variant, run, diagnosis in material.once(_diagnoses)
        for found in diagnosis
    ]
    if not rows:
        command = shell("robustmaps", "diagnose", material.study.best.runs[0].folder)
        return [Missing("No diagnosis has been made. This makes one:", command)]
    count = sum(row[3] == "suspect" for row in rows)
    text = f"{count or 'None'} of {len(rows)} checks {'is' if count < 2 else 'are'} suspicious."
    checks = table(("configuration", "seed", "check", "verdict", "what was found"), rows, "Checks and their verdicts")
    return [Text(text), Listing("diagnostics", checks, sortable=True, filterable=len(rows) > 15)]


def _suspicions(material: Material) -> Iterator[str]:
    for variant, run, diagnosis in material.once(_diagnoses):
        suspects = [found["name"] for found in diagnosis if found["verdict"] == "suspect"]
        if suspects:
            yield f"{variant.name}, seed {run.config.training.seed}: {', '.join(suspects)} is suspicious."


def _diagnoses(material: Material) -> list[tuple[Variant, RunRecord, list[dict[str, str]]]]:
    return [
        (variant, run, _diagnosis(path))
        for variant in material.study.variants
        for run in variant.runs
        for path in sorted((run.folder / "evaluation").glob("diagnosis-*.json"))
    ]


def _diagnosis(path: Path) -> list[dict[str, str]]:
    try:
        findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
        return [{key: str(finding[key]) for key in ("name", "verdict", "text")} for finding in findings]
    except (OSError, ValueError, KeyError, TypeError):
        return []


ROWS = (
    SectionRow(name="training", title="Training", order=30, blocks=training),
    SectionRow(name="attacks", title="Under attack", order=40, blocks=attacks),
    SectionRow(name="classes", title="Class by class", order=50, blocks=classes),
    SectionRow(name="diagnostics", title="Is the robustness real?", order=80, blocks=diagnostics, warnings=_suspicions),
)

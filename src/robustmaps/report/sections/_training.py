"""Accuracy over epochs."""

from collections.abc import Sequence

import numpy as np

from robustmaps.engine.tables import Cell, Table, table
from robustmaps.engine.text import shell
from robustmaps.report._blocks import Block, Listing, Missing, Text
from robustmaps.report.charts._depth import LearningCurve, learning_chart
from robustmaps.report.sections._commands import permission
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import MOST_LINES, some_only
from robustmaps.studies import Variant
from robustmaps.training import BEFORE_ENLARGING

_ROBUST = "validation_robust_accuracy"


def training(material: Material) -> list[Block]:
    """Accuracy over epochs, and whether robust accuracy declined again."""
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
        if all(run.status == "evaluated" for run in study.runs):
            return []
        run = material.study.runs[0]
        command = shell("robustmaps", "train", "--resume", run.folder, *permission(run))
        return [Missing("No epoch has been finished yet. To continue a run:", command)]
    blocks = some_only(len(shown), len(study.variants))
    blocks.append(learning_chart(curves, sentence, study.tints))
    blocks += [Text(sentence), Listing("overfitting", falls)] if falls.rows else []
    return blocks


def _curve(variant: Variant, kind: str, key: str) -> LearningCurve | None:
    runs = [{r["epoch"]: r[key] for r in run.history if r.get(key) is not None} for run in variant.runs]
    runs = [run for run in runs if run]
    epochs = sorted(set.intersection(*map(set, runs))) if runs else []
    if not epochs:
        return None
    smaller = [r["epoch"] for r in variant.runs[0].history if r.get(BEFORE_ENLARGING)]
    enlarged = max(smaller) + 1 if smaller and key == _ROBUST else None
    values = tuple(tuple(run[e] for e in epochs) for run in runs)
    return LearningCurve(variant.name, kind, tuple(epochs), values, enlarged)


def _overfitting(variants: Sequence[Variant]) -> tuple[Table, str]:
    """The fall of robust validation accuracy from the best epoch to the last, with the largest in words.

    Epochs of a network that was enlarged later do not count, since the best is not chosen among them.
    """
    rows: list[tuple[str, Cell, Cell, Cell]] = []
    for variant in variants:
        judged = [[r for r in run.history if not r.get(BEFORE_ENLARGING)] for run in variant.runs]
        each = [[r[_ROBUST] for r in epochs if r.get(_ROBUST) is not None] for epochs in judged]
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
        "points. Even without overfitting, the best of many noisy figures is slightly above the last. The "
        "weights of the best epoch were kept and evaluated."
    )


ROW = SectionRow(name="training", title="Training", order=30, blocks=training)

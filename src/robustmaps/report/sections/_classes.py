"""Robust accuracy per class."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robustmaps.engine.measured import Measured
from robustmaps.evaluation import Evaluation
from robustmaps.report._blocks import Block, Text
from robustmaps.report.charts._verdicts import classes_chart
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import not_evaluated
from robustmaps.studies import Variant, bounded

_MOST_CLASSES = 40


def classes(material: Material) -> list[Block]:
    """Robust accuracy per class of the best configuration and its reference."""
    study = material.study
    if study.yardstick is None:
        return [not_evaluated(study)]
    labels, names = material.labels
    if labels is None:
        return [Text("The evaluated images are not available here, so their classes are unknown.")]
    present = [label for label in range(len(names)) if (labels == label).any()]
    shares = {
        v.name: [_of_class(v, labels, k) for k in present] for v in (study.best, study.reference) if v is not None
    }
    shown = list(range(len(present)))
    blocks: list[Block] = []
    if len(present) > _MOST_CLASSES:
        ranked = sorted(shown, key=lambda n: shares[study.best.name][n].value)
        shown = [*ranked[: _MOST_CLASSES // 2], *ranked[-(_MOST_CLASSES // 2) :]]
        blocks.append(Text(f"Only the weakest and the strongest of {len(present)} classes are shown.", "note"))
    series = [(name, [each[n] for n in shown]) for name, each in shares.items()]
    labelled = [names[present[n]] for n in shown]
    chart = classes_chart(labelled, series, study.yardstick.text, study.tints)
    return [*blocks, chart]


def _of_class(variant: Variant, labels: NDArray[np.int64], label: int) -> Measured:
    rows = np.flatnonzero(labels == label)
    return bounded(
        [_only(evaluation, rows) for evaluation in variant.evaluated.values()], "robust_correct", student=False
    )


def _only(evaluation: Evaluation, rows: Iterable[int]) -> Evaluation:
    return replace(evaluation, verdicts=tuple(evaluation.verdicts[row] for row in rows))


ROW = SectionRow(name="classes", title="Class by class", order=50, blocks=classes)

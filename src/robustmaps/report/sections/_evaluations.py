"""Every evaluation of every configuration: each attack, radius, norm and set of images."""

from collections.abc import Sequence
from typing import Any

from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, norm_text
from robustmaps.engine.tables import NONE, Cell, Table, percent_cell, table
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation import Evaluation, over_seeds
from robustmaps.report._blocks import Block, Listing, Text
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.runs import Yardstick
from robustmaps.studies import Statistics, bounded, by_yardstick

_NORMS = ("linf", "l2", "l1")
Found = dict[Yardstick, list[Evaluation]]


def evaluations(material: Material) -> list[Block]:
    """A column per attack at the budget of the page, then a row per evaluation."""
    study = material.study
    found = {variant.name: by_yardstick(variant.runs) for variant in study.variants}
    sticks = list(dict.fromkeys(stick for each in found.values() for stick in each))
    if not sticks:
        return []
    labels = {stick: stick.heading for stick in sticks}
    columns = _columns(study)
    blocks: list[Block] = [] if columns is None else [Listing("columns", columns)]
    listed = _listed(found, labels)
    blocks.append(Listing("evaluations", listed, sortable=True, filterable=len(listed.rows) > 1))
    if any(stick.split == "train" for stick in sticks):
        blocks.append(Text("Figures on training images say nothing about new images.", "note"))
    return blocks


def _columns(study: Statistics) -> Table | None:
    """Robust accuracy under each evaluation with the budget and images of the page; None for fewer than two."""
    of = study.yardstick
    if of is None or not study.columns:
        return None
    rows = []
    for variant in study.variants:
        mine = [found for stick, found in by_yardstick(variant.runs).items() if stick in study.columns]
        clean = percent_cell(bounded(mine[0], "clean_correct")) if mine else NONE
        rates = (percent_cell(each[variant.name]) if variant.name in each else NONE for each in study.columns.values())
        rows.append((variant.name, clean, *rates))
    budget = f"{norm_text(of.norm)} {as_fraction(of.eps)}, {of.count:,} {of.kind}"
    accuracies = ("clean", *(stick.title for stick in study.columns))
    return table(("configuration", *accuracies), rows, f"Accuracy under each attack, {budget}", best=accuracies)


def _listed(found: dict[str, Found], labels: dict[Yardstick, str]) -> Table:
    norms = [n for n in _NORMS if any(_distance(of, n) != NONE for each in found.values() for of in each.values())]
    consistent = any(e.misclassified is not None for each in found.values() for of in each.values() for e in of)
    rows = []
    for name, each in found.items():
        for stick in sorted(each, key=lambda stick: (stick.norm, stick.eps, stick.kind, stick.count, labels[stick])):
            of = each[stick]
            kept = [_consistent(of)] if consistent else []
            rows.append(
                (
                    name,
                    labels[stick],
                    norm_text(stick.norm),
                    Cell(as_fraction(stick.eps), stick.eps),
                    f"{stick.count:,} {stick.kind}",
                    percent_cell(bounded(of, "clean_correct")),
                    percent_cell(bounded(of, "robust_correct")),
                    *kept,
                    *(_distance(of, norm) for norm in norms),
                    *_cost(of),
                )
            )
    means = (f"mean {norm_text(norm)}" for norm in norms)
    more = ["consistent"] if consistent else []
    columns = ("configuration", "attack", "norm", "eps", "images", "clean", "robust", *more, *means)
    columns += ("passes", "time (s)")
    # What all rows share is said once.
    shared = [
        at for at, name in enumerate(columns) if name in ("norm", "images") and len({row[at] for row in rows}) == 1
    ]
    about = "".join(f"; {rows[0][at]}" for at in shared)
    columns, rows = _without(columns, shared), [_without(row, shared) for row in rows]
    caption = (
        "All evaluations, with 95 % intervals; distances are those of the images that broke their samples; passes are "
        f"forward + backward per attacked image{about}"
    )
    return table(columns, rows, caption)


def _without(row: tuple[Any, ...], places: Sequence[int]) -> tuple[Any, ...]:
    return tuple(cell for at, cell in enumerate(row) if at not in places)


def _consistent(of: Sequence[Evaluation]) -> Cell | str:
    if any(evaluation.misclassified is None for evaluation in of):
        return NONE
    return percent_cell(bounded(of, "consistent_correct"))


def _distance(of: Sequence[Evaluation], norm: str) -> Cell | str:
    """The mean over the broken images of one seed, or over the seeds' means."""
    means = [evaluation.mean_distances[norm] for evaluation in of if norm in evaluation.mean_distances]
    if not means or not all(evaluation.perturbations for evaluation in of):
        return NONE
    mean: Measured = means[0] if len(means) == 1 else over_seeds([each.value for each in means])
    return Cell(str(mean), mean.value, mean.interval if mean.is_bounded else None)


def _cost(of: Sequence[Evaluation]) -> tuple[Cell | str, Cell]:
    """The mean passes of an attacked image, and the mean time of an evaluation."""
    counts, attacked = [e.passes for e in of if e.passes is not None], sum(e.attacked for e in of)
    passes = sum(counts, Passes())
    counted = len(counts) == len(of) and attacked
    seconds = sum(evaluation.seconds for evaluation in of) / len(of)
    return (
        Cell(passes.text(attacked), sum(passes.per_image(attacked))) if counted else NONE,
        Cell(f"{seconds:.3g}", seconds),
    )


ROW = SectionRow(name="evaluations", title="All evaluations", order=45, blocks=evaluations)

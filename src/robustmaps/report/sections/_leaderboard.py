"""Accuracy and cost of every configuration and run."""

import numpy as np

from robustmaps.engine.numbers import human
from robustmaps.engine.tables import NONE, Cell, Table, percent_cell, points_cell, table
from robustmaps.evaluation import Evaluation
from robustmaps.report._blocks import Block, Listing, Text
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import not_evaluated
from robustmaps.studies import Statistics, Variant, bounded, only_enlarged


def leaderboard(material: Material) -> list[Block]:
    """One row per configuration, and one per run."""
    study = material.study
    blocks: list[Block] = []
    if study.yardstick is None:
        blocks.append(not_evaluated(study))
    else:
        blocks.append(Text(f"Robust accuracy: {study.yardstick.text}. Brackets: 95 % intervals over images and seeds."))
    if _several_seeds(study):
        blocks.append(Text("Sd: standard deviation of robust accuracy between seeds, in points."))
    if study.gains:
        blocks.append(Text(_about_gains(study)))
    columns = (
        "configuration",
        "runs",
        "clean",
        "robust",
        *(["sd"] if _several_seeds(study) else []),
        *(["gain (points)"] if study.gains else []),
        "forward (FLOP)",
        "parameters",
        "activations (B)",
        "last map",
        "training (s)",
    )
    rows = [_row(variant, study) for variant in study.variants]
    several = len(rows) > 1
    blocks.append(Listing("leaderboard", table(columns, rows, _caption(study)), sortable=several, filterable=several))
    if len(study.compared) > 2:
        blocks.append(
            Text(
                f"The best of {len(study.compared)} configurations was chosen on the same images as its figure, "
                "so its lead over close competitors tends to be too large.",
                "note",
            )
        )
    if len(study.runs) > len(study.variants):
        blocks.append(Listing("runs", _runs_table(study), sortable=True, filterable=True, folded=True))
    return blocks


def _caption(study: Statistics) -> str:
    several = max(len(variant.runs) for variant in study.variants) > 1
    return "Accuracy and cost per configuration" + (", means over its runs" if several else "")


def _about_gains(study: Statistics) -> str:
    families = [family for family in study.families if len(family) > 1]
    plain = ", ".join(family[0].name for family in families)
    if not only_enlarged(families[0][0].config, families[0][1].config):
        return f"Gain: difference in robust accuracy to the cheapest configuration, {plain}, over the common seeds."
    return (
        "Gain: difference in robust accuracy to the cheapest configuration that differs only in its maps "
        f"({plain}), over the common seeds. Intervals are corrected for all comparisons with the same reference."
    )


def _row(variant: Variant, study: Statistics) -> tuple[object, ...]:
    cost = variant.cost
    rates: tuple[object, object] = (NONE, NONE)
    if variant.evaluated:
        rates = (percent_cell(variant.clean), percent_cell(variant.robust))
    spread: tuple[object, ...] = ()
    if _several_seeds(study):
        deviation = variant.deviations[1]
        spread = (NONE if deviation is None else Cell(f"{100 * deviation:.1f}", 100 * deviation),)
    gain = study.gains.get(variant.name)
    gains = (NONE if gain is None else points_cell(gain.difference),) if study.gains else ()
    seconds = float(np.mean([run.seconds for run in variant.runs]))
    return (
        variant.name,
        _runs(variant),
        *rates,
        *spread,
        *gains,
        *((_human(cost.flops), _human(cost.parameters), _human(cost.activation_bytes)) if cost else (NONE,) * 3),
        _map(cost.map_size if cost else None),
        Cell(f"{seconds:.3g}", seconds) if any(run.history for run in variant.runs) else NONE,
    )


def _several_seeds(study: Statistics) -> bool:
    return any(len(variant.evaluated) > 1 for variant in study.compared)


def _runs(variant: Variant) -> Cell:
    """The number of runs, and of evaluated ones if that is neither all nor none."""
    all_of_them, evaluated = len(variant.runs), len(variant.evaluated)
    part = f"{evaluated} of " if 0 < evaluated < all_of_them else ""
    return Cell(f"{part}{all_of_them}", evaluated or all_of_them)


def _map(size: tuple[int, int] | None) -> Cell | str:
    return Cell("x".join(map(str, size)), size[0] * size[1]) if size else NONE


def _human(number: float) -> Cell:
    return Cell(human(number), number)


def _runs_table(study: Statistics) -> Table:
    rows = []
    for variant in study.variants:
        for run, evaluation in zip(variant.runs, variant.evaluations, strict=True):
            rates: tuple[object, object] = (NONE, NONE)
            if evaluation is not None:
                rates = (_rate(evaluation, "clean_correct"), _rate(evaluation, "robust_correct"))
            seed, best = run.config.training.seed, run.best_epoch
            rows.append(
                (
                    run.folder.name,
                    variant.name,
                    Cell(str(seed), seed),
                    run.status,
                    *rates,
                    NONE if best is None else Cell(run.kept, best),
                    Cell(f"{run.seconds:.3g}", run.seconds),
                )
            )
    columns = ("run", "configuration", "seed", "status", "clean", "robust", "epoch of the weights", "training (s)")
    return table(columns, rows, f"All {len(rows)} runs")


def _rate(evaluation: Evaluation, which: str) -> Cell:
    return percent_cell(bounded([evaluation], which))


ROW = SectionRow(
    name="leaderboard",
    title=lambda material: "Leaderboard" if len(material.study.variants) > 1 else "Figures",
    order=10,
    blocks=leaderboard,
)

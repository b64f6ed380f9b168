"""Accuracy and cost of every configuration and run."""

import numpy as np

from robustmaps.engine.numbers import counted, human
from robustmaps.engine.tables import NONE, Cell, Table, percent_cell, points_cell, table
from robustmaps.evaluation import Evaluation
from robustmaps.report._blocks import Block, Listing, Text
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.report.sections._shared import not_evaluated
from robustmaps.studies import Statistics, Variant, bounded, only_enlarged

LEADERBOARD = "leaderboard"
"""The name of the table that a paper shows."""


def leaderboard(material: Material) -> list[Block]:
    """One row per configuration, and one per run."""
    study = material.study
    blocks: list[Block] = []
    if study.yardstick is None:
        blocks.append(not_evaluated(study))
    if _several_seeds(study):
        blocks.append(Text("Sd: standard deviation of robust accuracy between seeds, in points."))
    if study.gains:
        blocks.append(Text(_about_gains(study)))
    several = len(study.variants) > 1
    blocks.append(Listing(LEADERBOARD, _accuracies(study), sortable=several, filterable=several))
    if len(study.compared) > 2:
        blocks.append(
            Text(
                f"The best of {len(study.compared)} configurations was chosen on the same images as its figure, "
                "so its lead over close competitors tends to be too large.",
                "note",
            )
        )
    blocks.append(Listing("costs", _costs(study), sortable=several))
    if len(study.runs) > len(study.variants):
        blocks.append(Listing("runs", _runs_table(study), sortable=True, filterable=True, folded=True))
    return blocks


def _measured(study: Statistics) -> str:
    """Attack, budget, and the numbers of images and seeds of robust accuracy."""
    if study.yardstick is None:
        return ""
    counts = sorted({len(variant.evaluated) for variant in study.compared})
    seeds = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f". Robust accuracy: {study.yardstick.text}, {seeds}. Brackets: 95 % intervals over images and seeds"


def _means(study: Statistics) -> str:
    return ", means over its runs" * (max(len(variant.runs) for variant in study.variants) > 1)


def _about_gains(study: Statistics) -> str:
    families = [family for family in study.families if len(family) > 1]
    plain = ", ".join(family[0].name for family in families)
    if not only_enlarged(families[0][0].config, families[0][1].config):
        return f"Gain: difference in robust accuracy to the cheapest configuration, {plain}, over the common seeds."
    return (
        "Gain: difference in robust accuracy to the cheapest configuration that differs only in its maps "
        f"({plain}), over the common seeds. Intervals are corrected for all comparisons with the same reference."
    )


def _accuracies(study: Statistics) -> Table:
    """What a leaderboard is asked for, the most important first."""
    seeds, gains = _several_seeds(study), bool(study.gains)
    rows = []
    for variant in study.variants:
        cost, deviation = variant.cost, variant.deviations[1]
        gain = study.gains.get(variant.name)
        rows.append(
            (
                variant.name,
                percent_cell(variant.robust) if variant.evaluated else NONE,
                *([NONE if gain is None else points_cell(gain.difference)] if gains else []),
                percent_cell(variant.clean) if variant.evaluated else NONE,
                *([NONE if deviation is None else Cell(f"{100 * deviation:.1f}", 100 * deviation)] if seeds else []),
                _runs(variant),
                _human(cost.flops) if cost else NONE,
            )
        )
    columns = ("configuration", "robust", *(["gain (points)"] if gains else []), "clean", *(["sd"] if seeds else []))
    columns += ("runs", "forward (FLOP)")
    # The caption goes with the table into a paper, so it has all that the figures need.
    caption = f"Accuracy per configuration{_means(study)}{_measured(study)}"
    return table(columns, rows, caption, best=("robust", "gain (points)", "clean"))


def _costs(study: Statistics) -> Table:
    rows, late = [], any(variant.cost is not None and variant.cost.mean_flops for variant in study.variants)
    for variant in study.variants:
        cost, seconds = variant.cost, float(np.mean([run.seconds for run in variant.runs]))
        figures = (_human(cost.flops), _human(cost.parameters), _human(cost.activation_bytes)) if cost else (NONE,) * 3
        trained = any(run.history for run in variant.runs)
        size = _map(cost.map_size if cost else None)
        mean = [(_human(cost.mean_flops or cost.flops) if cost else NONE)] * late
        rows.append((variant.name, *figures, *mean, size, Cell(f"{seconds:.3g}", seconds) if trained else NONE))
    over_epochs = ["forward, mean over epochs (FLOP)"] * late  # of networks that were enlarged during training
    columns = ("configuration", "forward (FLOP)", "parameters", "activations (B)", *over_epochs, "last map")
    columns += ("training (s)",)
    return table(columns, rows, f"Cost per configuration, for one image; time of training{_means(study)}")


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
    measured = "" if study.yardstick is None else f". Robust accuracy: {study.yardstick.text}"
    return table(columns, rows, f"All {len(rows)} runs{measured}")


def _rate(evaluation: Evaluation, which: str) -> Cell:
    return percent_cell(bounded([evaluation], which))


ROW = SectionRow(
    name="leaderboard",
    title=lambda material: "Leaderboard" if len(material.study.variants) > 1 else "Figures",
    order=10,
    blocks=leaderboard,
)

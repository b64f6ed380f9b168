"""The sections of a report on accuracy and cost, and on how to repeat it."""

import json

import numpy as np

from robustmaps.engine.numbers import human
from robustmaps.evaluation import Evaluation
from robustmaps.experiments._config import write_config
from robustmaps.experiments._study import NONE, NOT_EVALUATED, Study, difference
from robustmaps.experiments._variants import Variant, bounded, family
from robustmaps.report import (
    Block,
    Bounded,
    Cell,
    Code,
    Listing,
    Missing,
    Section,
    Table,
    Text,
    TradeOff,
    differences_chart,
    percent_cell,
    points_cell,
    table,
    trade_off_chart,
)


def leaderboard(study: Study) -> Section:
    """One row per configuration, and one per run."""
    reference = study.reference
    blocks: list[Block] = []
    if study.yardstick is None:
        blocks.append(Missing(NOT_EVALUATED, study.evaluate))
    else:
        blocks.append(Text(f"Robust accuracy: {study.yardstick.text}. Brackets: 95 % intervals over images and seeds."))
    rows = [_row(variant, reference) for variant in study.variants]
    columns = (
        "configuration",
        "runs",
        "clean",
        "robust",
        *([f"against {reference.name} (points)"] if reference else []),
        "forward (FLOP)",
        "parameters",
        "activations (B)",
        "last map",
        "training (s)",
    )
    rows = [row if reference else (*row[:4], *row[5:]) for row in rows]
    several = len(rows) > 1
    blocks.append(Listing("leaderboard", table(columns, rows, _caption(study)), sortable=several, filterable=several))
    if len(study.compared) > 2:
        blocks.append(
            Text(
                f"The best of {len(study.compared)} configurations was found on the same images that its figure is "
                "from, so its lead over those close behind is on the large side.",
                "note",
            )
        )
    if len(study.runs) > len(study.variants):
        blocks.append(Listing("runs", _runs_table(study), sortable=True, filterable=True, folded=True))
    return Section("leaderboard", "Leaderboard" if several else "Figures", tuple(blocks))


def _caption(study: Study) -> str:
    several = max(len(variant.runs) for variant in study.variants) > 1
    return "Accuracy and cost per configuration" + (", means over its runs" if several else "")


def _row(variant: Variant, reference: Variant | None) -> tuple[object, ...]:
    cost = variant.cost
    rates: tuple[object, object] = (NONE, NONE)
    lead: object = ""
    if variant.evaluated:
        rates = (percent_cell(variant.clean), percent_cell(variant.robust))
        if reference is not None and variant is not reference:
            found = difference(variant, reference)
            lead = NONE if found is None else points_cell(Bounded(found.value, *found.interval))
    seconds = float(np.mean([run.seconds for run in variant.runs]))
    return (
        variant.name,
        _runs(variant),
        *rates,
        lead,
        *((_human(cost.flops), _human(cost.parameters), _human(cost.activation_bytes)) if cost else (NONE,) * 3),
        Cell("x".join(map(str, cost.map_size)), cost.map_size[0] * cost.map_size[1])
        if cost and cost.map_size
        else NONE,
        Cell(f"{seconds:.3g}", seconds),
    )


def _runs(variant: Variant) -> Cell:
    """How many runs; how many of them have been evaluated, where that is not all or none."""
    all_of_them, evaluated = len(variant.runs), len(variant.evaluated)
    part = f"{evaluated} of " if 0 < evaluated < all_of_them else ""
    return Cell(f"{part}{all_of_them}", evaluated or all_of_them)


def _map(size: tuple[int, int] | None) -> Cell | str:
    return Cell("x".join(map(str, size)), size[0] * size[1]) if size else NONE


def _human(number: float) -> Cell:
    return Cell(human(number), number)


def _runs_table(study: Study) -> Table:
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
                    NONE if best is None else Cell(str(best), best),
                    Cell(f"{run.seconds:.3g}", run.seconds),
                )
            )
    columns = ("run", "configuration", "seed", "status", "clean", "robust", "best epoch", "training (s)")
    return table(columns, rows, f"All {len(rows)} runs")


def _rate(evaluation: Evaluation, which: str) -> Cell:
    return percent_cell(bounded([evaluation], which))


def trade_offs(study: Study) -> Section | None:
    """Clean against robust accuracy with cost, and the differences to the reference."""
    if len(study.compared) < 2 or study.yardstick is None:
        return None
    configs = [variant.config for variant in study.compared]
    points = [
        TradeOff(
            variant.name,
            family(variant.config, configs),
            variant.clean,
            variant.robust,
            variant.cost.flops if variant.cost else None,
            human(variant.cost.flops, "FLOP") if variant.cost else "cost unknown",
        )
        for variant in study.compared
    ]
    blocks: list[Block] = [trade_off_chart(points, study.yardstick.short)]
    reference = study.reference
    if reference is not None:
        found = [(v.name, difference(v, reference)) for v in study.compared if v is not reference]
        known = [(name, Bounded(d.value, *d.interval)) for name, d in found if d is not None]
        if known:
            blocks.append(differences_chart(known, reference.name))
    return Section("trade-off", "Accuracy, robustness, cost", tuple(blocks))


def repeating(study: Study) -> Section:
    """The configuration, the commands and the environment."""
    run = study.best.runs[0]
    blocks: list[Block] = [
        Text("A run is repeated from its configuration; on a CPU with the same versions, to the same weights."),
        Code("Commands", _commands(study)),
        Code(
            f"Configuration of {study.best.name}, seed {run.config.training.seed}",
            write_config(run.config),
            folded=True,
        ),
    ]
    if study.yardstick is not None:
        settings = json.dumps(json.loads(study.yardstick.attacks), indent=2)
        about = f"images: {study.yardstick.count}, SHA-256 {study.yardstick.images}\nattacks: {settings}\n"
        blocks.append(Code("Settings of the evaluation", about, folded=True))
    blocks.append(Listing("environment", _environments(study)))
    return Section("repeat", "Repeat it", tuple(blocks))


def _commands(study: Study) -> str:
    lines = [f"robustmaps train --config {run.folder}/config.yaml" for run in study.best.runs]
    lines.append(study.evaluate)
    return "\n".join([*lines, f"robustmaps report {study.folder}"]) + "\n"


def _environments(study: Study) -> Table:
    found: dict[str, dict[str, int]] = {}
    for run in study.runs:
        for key, value in run.environment.items():
            counts = found.setdefault(key, {})
            counts[str(value)] = counts.get(str(value), 0) + 1
    rows = [
        (key, "; ".join(f"{value} ({n} runs)" if len(counts) > 1 else value for value, n in counts.items()))
        for key, counts in found.items()
    ]
    return table(("what", "version or device"), rows, f"Environment of the {'runs' if len(study.runs) > 1 else 'run'}")

"""The sections of a report on accuracy and cost, and on how to repeat it."""

import json

import numpy as np

from robustmaps.config import write_config
from robustmaps.engine.numbers import human
from robustmaps.evaluation import Evaluation
from robustmaps.figures import NONE, Cell, Table, percent_cell, points_cell, table
from robustmaps.report._blocks import Block, Code, Listing, Missing, Text
from robustmaps.report._words import NOT_EVALUATED
from robustmaps.report.charts._accuracy import TradeOff, differences_chart, trade_off_chart
from robustmaps.report.sections._commands import first_evaluation, repeat_commands
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.studies import Statistics, Variant, bounded, family, only_enlarged

_SENTENCES = 12
"""Comparisons that are also put in words."""


def leaderboard(material: Material) -> list[Block]:
    """One row per configuration, and one per run."""
    study = material.study
    blocks: list[Block] = []
    if study.yardstick is None:
        blocks.append(Missing(NOT_EVALUATED, first_evaluation(study)))
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
                f"The best of {len(study.compared)} configurations was found on the same images that its figure is "
                "from, so its lead over those close behind is on the large side.",
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
        return (
            f"Gain: difference in robust accuracy to the cheapest configuration, {plain}, over the seeds that all have."
        )
    return (
        "Gain: difference in robust accuracy to the cheapest configuration that differs in nothing but the maps "
        f"({plain}), over the common seeds. Intervals are corrected for all comparisons with the same one."
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
        Cell(f"{seconds:.3g}", seconds),
    )


def _several_seeds(study: Statistics) -> bool:
    return any(len(variant.evaluated) > 1 for variant in study.compared)


def _runs(variant: Variant) -> Cell:
    """How many runs; how many of them have been evaluated, where that is not all or none."""
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
                    NONE if best is None else Cell(str(best), best),
                    Cell(f"{run.seconds:.3g}", run.seconds),
                )
            )
    columns = ("run", "configuration", "seed", "status", "clean", "robust", "best epoch", "training (s)")
    return table(columns, rows, f"All {len(rows)} runs")


def _rate(evaluation: Evaluation, which: str) -> Cell:
    return percent_cell(bounded([evaluation], which))


def trade_offs(material: Material) -> list[Block]:
    """Clean against robust accuracy with cost, and the differences to the reference."""
    study = material.study
    if len(study.compared) < 2 or study.yardstick is None:
        return []
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
    if study.gains:
        gains = [(gain.b, gain.a, gain.difference) for gain in study.gains.values()]
        blocks.append(differences_chart(gains))
        blocks += [Text(gain.as_sentence()) for gain in list(study.gains.values())[:_SENTENCES]]
        if len(gains) > _SENTENCES:
            blocks.append(Text(f"The other {len(gains) - _SENTENCES} stand in the figures of the plot.", "note"))
    return blocks


def repeating(material: Material) -> list[Block]:
    """The configuration, the commands and the environment."""
    study = material.study
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
    plan = study.folder / "study.yaml"
    if plan.is_file():
        text = plan.read_text(encoding="utf-8", errors="replace")
        blocks.append(Code("The study, as robustmaps sweep takes it", text, folded=True))
    if study.yardstick is not None:
        settings = json.dumps(json.loads(study.yardstick.attacks), indent=2)
        about = f"images: {study.yardstick.count}, SHA-256 {study.yardstick.images}\nattacks: {settings}\n"
        blocks.append(Code("Settings of the evaluation", about, folded=True))
    blocks.append(Listing("environment", _environments(study)))
    return blocks


def _commands(study: Statistics) -> str:
    lines = repeat_commands(study.folder, study.best.runs, study.best.evaluations)
    return "\n".join(lines) + "\n"


def _environments(study: Statistics) -> Table:
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


ROWS = (
    SectionRow(
        name="leaderboard",
        title=lambda material: "Leaderboard" if len(material.study.variants) > 1 else "Figures",
        order=10,
        blocks=leaderboard,
    ),
    SectionRow(name="trade-off", title="Accuracy, robustness, cost", order=20, blocks=trade_offs),
    SectionRow(name="repeat", title="Repeat it", order=90, blocks=repeating),
)

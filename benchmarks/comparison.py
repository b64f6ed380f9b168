"""What enlarging buys: tables and curves of runs with maps of different sizes, as in docs/comparison-tables.md.

    python benchmarks/comparison.py RUNS --plot comparison.png

RUNS holds what `robustmaps train` and `evaluate` (or `sweep`) made. Configurations that differ in nothing but strides,
upsampling and surgery make one table; each is compared with the cheapest of it, paired by seed and image.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from robustmaps import defenses, models
from robustmaps.config import RunConfig
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.tables import percent_cell
from robustmaps.enlarging import plan
from robustmaps.figures._plots import _COLOURS, _STYLE
from robustmaps.networks import allow_code, open_checkpoint
from robustmaps.networks._data import load_data
from robustmaps.runs import RunRecord, read_runs
from robustmaps.studies import Statistics, statistics_of
from robustmaps.studies._configurations import Variant, only_enlarged

_ROBUST = "validation_robust_accuracy"


def families(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Evaluated runs, those together that differ in nothing but the size of their maps and the seed."""
    found: list[list[RunRecord]] = []
    for record in map(at_telling_radius, records):
        if not record.evaluations:
            continue
        mine = next((each for each in found if only_enlarged(each[0].config, record.config)), None)
        if mine is None:
            found.append([record])
        else:
            mine.append(record)
    return found


def at_telling_radius(record: RunRecord) -> RunRecord:
    """A run without a defence, with its evaluations at the smallest radius alone: it withstands no larger one."""
    if record.config.defense.defense != "standard" or not record.evaluations:
        return record
    least = min(evaluation.eps for evaluation in record.evaluations.values())
    kept = {name: each for name, each in record.evaluations.items() if each.eps == least}
    return replace(record, evaluations=kept)


def title_of(config: RunConfig) -> str:
    """Data, network, defence and length of training."""
    size = f" at {config.data.image_size} px" if config.data.image_size else ""
    data = f"{Path(config.data.data).name}{size}"
    network, defense = models.title_of(config.model.model), defenses.title_of(config.defense.defense)
    return f"{data}, {short(network)} · {defense}, {config.training.epochs} epochs"


def short(name: str) -> str:
    """Without the module or library before a network's name."""
    return re.sub(r"\b[\w.]+:(?=\w+\b)", "", name)


def difference_of(found: Statistics, variant: Variant) -> str:
    """How much more robust than the first of the table, in points; empty for the first itself."""
    gain = found.gains.get(variant.name)
    if gain is None:
        return ""
    low, high = (100 * bound for bound in gain.interval)
    return f"{100 * gain.value:+.1f} [{low:+.1f}, {high:+.1f}]" + ("" if gain.shown else ", not shown")


def summary(titled: Sequence[tuple[str, Statistics]]) -> str:
    """All tables in one, a row for each larger map."""
    lines = ["| | radius | as it is | enlarged | operations | difference | seeds |", "| --- " * 7 + "|"]
    for title, found in titled:
        plain, *others = found.families[0]
        for variant in others:
            cells = (
                title,
                as_fraction(found.yardstick.eps),
                percent_cell(plain.robust).text,
                f"{short(variant.name)}: {percent_cell(variant.robust).text}",
                f"{variant.cost.flops / plain.cost.flops:.2f}x",
                difference_of(found, variant),
                str(len(variant.evaluated)),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sees(variant: Variant) -> str:
    """The share of the image's side that the last map sees."""
    with allow_code(variant.config.model.model):
        checkpoint = open_checkpoint(variant.runs[0].folder)
    images = load_data(variant.config.data).test.subset(10).tensors()[0][:1]
    share = plan(checkpoint.model, images, upsamples=(1,), budget=1).options[0].field_share
    return "-" if share is None else f"{100 * share:.0f} %"


def table(found: Statistics) -> str:
    """A table in Markdown, the cheapest configuration first."""
    (family,) = found.families
    plain = family[0].cost.flops
    lines = [
        "| | last map | sees | operations | clean | robust | against the first | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant in family:
        size = "x".join(map(str, variant.cost.map_size or ()))
        ratio = f"{variant.cost.flops / plain:.2f}x"
        cells = (
            short(variant.name),
            size,
            sees(variant),
            ratio,
            percent_cell(variant.clean).text,
            percent_cell(variant.robust).text,
            difference_of(found, variant),
        )
        lines.append("| " + " | ".join((*cells, str(len(variant.evaluated)))) + " |")
    return "\n".join(lines)


def draw(path: Path, titled: Sequence[tuple[str, Statistics]]) -> None:
    """Robust accuracy on validation images over epochs, the mean over seeds, a panel for each table that has it."""
    titled = [(title, found) for title, found in titled if _ROBUST in found.runs[0].history[-1]]
    if not titled:
        raise SystemExit(f"{path}: nothing to draw, no run has robust accuracy on validation images")
    columns = min(3, len(titled))
    rows = -(-len(titled) // columns)
    with mpl.rc_context(_STYLE):
        _draw_panels(path, titled, rows, columns)


def _draw_panels(path: Path, titled: Sequence[tuple[str, Statistics]], rows: int, columns: int) -> None:
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes[len(titled) :]:
        axis.set_axis_off()
    for axis, (title, found) in zip(axes, titled, strict=False):
        for colour, variant in zip(_COLOURS, found.families[0], strict=False):
            curves = [[100 * record[_ROBUST] for record in run.history] for run in variant.runs]
            shortest = min(map(len, curves))
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            axis.plot(np.arange(1, shortest + 1), mean, color=colour, label=short(variant.name))
        axis.set(xlabel="epoch", ylabel="robust accuracy, validation (%)")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables, and draw the curves where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    titled = []
    for records in families(read_runs(arguments.runs, skipped=lambda *_: None)):
        found = statistics_of(records, arguments.runs)
        if len(found.compared) < 2:
            continue
        title = title_of(records[0].config)
        print(f"### {title}\n\n{table(found)}\n\n{found.yardstick.text}.\n")
        for sentence in found.sentences():
            print(f"- {sentence}")
        print()
        titled.append((title, found))
    print(f"### All\n\n{summary(titled)}")
    if arguments.plot is not None:
        draw(arguments.plot, titled)


if __name__ == "__main__":
    main()

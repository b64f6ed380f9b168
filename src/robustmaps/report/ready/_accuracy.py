"""Tables of accuracy and cost, and accuracy along an axis: what the runs and their evaluations show."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from robustmaps.config import to_mapping
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, human, norm_text
from robustmaps.engine.tables import NONE, Cell, percent_cell, table
from robustmaps.evaluation import Evaluation
from robustmaps.figures import plot_lines
from robustmaps.report.ready._made import Made, Rendered
from robustmaps.report.sections._evaluations import Found
from robustmaps.runs import Yardstick
from robustmaps.studies import bounded


def accuracy(made: Made) -> Rendered:
    """A row per configuration and a column per attack."""
    found = made.evaluations
    labels = _labels(found.values())
    # That of one evaluation, the worst case where there is one; all of them would make the table twice as wide.
    consistent = [stick for stick in labels if any(_is_consistent(each.get(stick, [])) for each in found.values())][-1:]
    rows = []
    for variant in made.variants:
        of = found[variant.name]
        clean = next((percent_cell(bounded(of[stick], "clean_correct")) for stick in labels if stick in of), NONE)
        robust = (percent_cell(bounded(of[stick], "robust_correct")) if stick in of else NONE for stick in labels)
        kept = (
            percent_cell(bounded(of[stick], "consistent_correct")) if _is_consistent(of.get(stick, [])) else NONE
            for stick in consistent
        )
        rows.append((variant.name, Cell(str(len(variant.runs)), len(variant.runs)), clean, *robust, *kept))
    columns = ("configuration", "seeds", "clean", *labels.values(), *(f"consistent, {labels[s]}" for s in consistent))
    return Rendered(table(columns, rows, f"{made.title}: accuracy, {_images(labels)}"))


def _labels(found: Iterable[Found]) -> dict[Yardstick, str]:
    """Evaluations by what they share, each attack by itself before the worst case of them."""
    sticks = {stick: None for each in found for stick in each}
    several = len({stick.eps for stick in sticks}) > 1
    return {
        stick: stick.title + (f", eps {as_fraction(stick.eps)}" if several else "")
        for stick in sorted(sticks, key=lambda stick: (stick.alone, stick.eps))
    }


def _images(labels: Mapping[Yardstick, str]) -> str:
    return ", ".join(dict.fromkeys(f"{stick.count:,} {stick.kind}" for stick in labels))


def _is_consistent(of: Sequence[Evaluation]) -> bool:
    return bool(of) and all(evaluation.misclassified is not None for evaluation in of)


def curve(made: Made) -> Rendered:
    """Accuracy along the study's axis."""
    over = str(made.ready.over)
    found = made.evaluations
    labels = _labels(found.values())
    lines = _along_eps(found) if over == "eps" else _along_key(made, over, labels)
    ticks = {x: as_fraction(x) if over == "eps" else f"{x:g}" for x in sorted({x for at in lines.values() for x in at})}
    rows = [(name, *(percent_cell(at[x]) if x in at else NONE for x in ticks)) for name, at in lines.items()]
    first = next(iter(labels))
    if over == "eps":
        kind, axis = "configuration", f"eps ({norm_text(first.norm)}, images in [0, 1])"
        what = f"{labels[first].partition(', eps')[0]}, {_images(labels)}"
    else:
        kind, axis, what = "attack", f"{over.replace('_', ' ')} factor", _images(labels)
    return Rendered(
        table((kind, *(f"{over} {text}" for text in ticks.values())), rows, f"{made.title}: accuracy, {what}"),
        lambda path: plot_lines(path, {n: list(at.items()) for n, at in lines.items()}, axis, made.title, ticks),
        f"{what}. Bands: 95 % intervals.",
    )


def _along_eps(found: Mapping[str, Found]) -> dict[str, dict[float, Measured]]:
    """A line per configuration, from clean accuracy at 0 on."""
    lines = {}
    for name, of in found.items():
        sticks = sorted(of, key=lambda stick: stick.eps)
        clean = bounded(of[sticks[0]], "clean_correct")
        lines[name] = {0.0: clean} | {stick.eps: bounded(of[stick], "robust_correct") for stick in sticks}
    return lines


def _along_key(made: Made, key: str, labels: Mapping[Yardstick, str]) -> dict[str, dict[float, Measured]]:
    """A line per attack, and one of clean accuracy."""
    lines: dict[str, dict[float, Measured]] = {}
    places = {float(to_mapping(variant.config)[key]): variant for variant in made.variants}
    for x, variant in sorted(places.items()):
        of = made.evaluations[variant.name]
        lines.setdefault("clean", {})[x] = bounded(next(iter(of.values())), "clean_correct")
        for stick in (stick for stick in labels if stick in of and not stick.alone):
            lines.setdefault(labels[stick], {})[x] = bounded(of[stick], "robust_correct")
    return lines


def cost(made: Made) -> Rendered:
    """Memory and time, beside those of the network's first variant."""
    references: dict[str, tuple[float, ...]] = {}
    rows = []
    for variant in made.variants:
        if variant.cost is None:
            continue
        epoch_s = float(np.mean([run.seconds / max(len(run.history), 1) for run in variant.runs]))
        attack_ms = float(np.mean([1e3 * e.seconds / len(e.verdicts) for e in variant.evaluated.values()]))
        figures = (variant.cost.flops, variant.cost.activation_bytes, epoch_s, attack_ms)
        texts = (human(figures[0]), human(figures[1]), f"{epoch_s:.3g}", f"{attack_ms:.3g}")
        first = references.setdefault(variant.config.model.model, figures)
        size = variant.cost.map_size
        rows.append(
            (
                variant.name,
                Cell("x".join(map(str, size)), size[0] * size[1]) if size else NONE,
                Cell(human(variant.cost.parameters), variant.cost.parameters),
                *(
                    Cell(f"{text} (x {value / reference:.2f})" if reference else text, value)
                    for text, value, reference in zip(texts, figures, first, strict=True)
                ),
            )
        )
    columns = (
        *("configuration", "last map", "parameters", "forward (FLOP)", "activations (B)"),
        *("epoch (s)", f"{Yardstick.of(next(iter(made.study.compared[0].evaluated.values()))).heading} (ms per image)"),
    )
    return Rendered(table(columns, rows, f"{made.title}: per image, and relative to the first row of a network"))

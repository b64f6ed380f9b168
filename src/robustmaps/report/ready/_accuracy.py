"""Tables of accuracy and cost, and accuracy along an axis: what the runs and their evaluations show."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from robustmaps.config import to_mapping
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction, human
from robustmaps.engine.tables import NONE, Cell, percent_cell, table
from robustmaps.evaluation import Evaluation
from robustmaps.figures import plot_lines
from robustmaps.report.ready._made import Made, Rendered
from robustmaps.report.sections._commands import attack_label
from robustmaps.report.sections._evaluations import Found, by_yardstick
from robustmaps.runs import Yardstick
from robustmaps.studies import bounded


def accuracy(made: Made) -> Rendered:
    """A row per configuration and a column per attack."""
    found = {variant.name: by_yardstick(variant.runs) for variant in made.variants}
    labels = _labels(found.values())
    consistent = [stick for stick in labels if any(_is_consistent(each.get(stick, [])) for each in found.values())]
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
    return Rendered(table(columns, rows, f"{made.ready.title}: accuracy, {_images(labels)}"))


def _labels(found: Iterable[Found]) -> dict[Yardstick, str]:
    firsts = {stick: of[0] for each in found for stick, of in each.items()}
    ordered = sorted(firsts, key=lambda stick: (stick.alone, stick.eps))
    several = len({stick.eps for stick in firsts}) > 1
    return {
        stick: attack_label(firsts[stick]) + (f", eps {as_fraction(stick.eps)}" if several else "") for stick in ordered
    }


def _images(labels: Mapping[Yardstick, str]) -> str:
    return ", ".join(dict.fromkeys(f"{stick.count:,} {stick.kind}" for stick in labels))


def _is_consistent(of: Sequence[Evaluation]) -> bool:
    return bool(of) and all(evaluation.misclassified is not None for evaluation in of)


def curve(made: Made) -> Rendered:
    """Accuracy along the study's axis."""
    found = {variant.name: by_yardstick(variant.runs) for variant in made.variants}
    labels = _labels(found.values())
    lines: dict[str, list[tuple[float, Measured]]] = {}
    if made.ready.over == "eps":
        for name, of in found.items():
            sticks = sorted(of, key=lambda stick: stick.eps)
            lines[name] = [(0.0, bounded(of[sticks[0]], "clean_correct"))]
            lines[name] += [(stick.eps, bounded(of[stick], "robust_correct")) for stick in sticks]
        ticks = {x: as_fraction(x) for points in lines.values() for x, _ in points}
        norm = next(iter(labels)).norm.replace("linf", "l_inf")
        label, what = f"eps ({norm}, images in [0, 1])", f"{next(iter(labels)).names[0]}, {_images(labels)}"
    else:
        key = str(made.ready.over)
        for variant in sorted(made.variants, key=lambda one: float(to_mapping(one.config)[key])):
            x, of = float(to_mapping(variant.config)[key]), found[variant.name]
            first = next(iter(of.values()))
            for line, figure in (
                ("clean", bounded(first, "clean_correct")),
                *((labels[stick], bounded(of[stick], "robust_correct")) for stick in labels if stick in of),
            ):
                lines.setdefault(line, []).append((x, figure))
        ticks, label, what = None, f"{key.replace('_', ' ')} factor", _images(labels)
    places = sorted({x for points in lines.values() for x, _ in points})
    rows = []
    for name, points in lines.items():
        at = dict(points)
        rows.append((name, *(percent_cell(at[x]) if x in at else NONE for x in places)))
    columns = ("accuracy", *((ticks or {}).get(x, f"{x:g}") for x in places))
    caption = f"{made.ready.title}: accuracy over {label}, {what}"
    return Rendered(
        table(columns, rows, caption),
        lambda path: plot_lines(path, lines, label, made.ready.title, ticks),
        f"{what}. Bands: 95 % intervals.",
    )


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
                    Cell(f"{text} (x {value / reference:.2f})", value)
                    for text, value, reference in zip(texts, figures, first, strict=True)
                ),
            )
        )
    columns = (
        *("configuration", "last map", "parameters", "forward (FLOP)", "activations (B)"),
        *("epoch (s)", f"{attack_label(next(iter(made.study.compared[0].evaluated.values())))} (ms per image)"),
    )
    return Rendered(table(columns, rows, f"{made.ready.title}: per image, and relative to the first row of a network"))

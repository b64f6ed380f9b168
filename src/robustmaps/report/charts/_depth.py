"""Plots over epochs and along the depth of a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustmaps.engine.measured import Measured, told_apart
from robustmaps.engine.tables import Cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._plot import (
    MUTED,
    Axis,
    Dash,
    Key,
    Mark,
    Plot,
    Series,
    Tints,
    names_axis,
    percent_axis,
    tint,
    tints_of,
)


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy over epochs for several runs.

    Attributes:
        name: name of the configuration.
        kind: what is measured, such as ``validation, robust``.
        epochs: the epochs, from 1.
        runs: accuracies per run and epoch.
        enlarged: the first epoch of a network that was enlarged during training; None for other networks.
    """

    name: str
    kind: str
    epochs: tuple[int, ...]
    runs: tuple[tuple[float, ...], ...]
    enlarged: int | None = None


_FEW_EPOCHS = 15
_FEW_NAMES = 3
_DIAMOND = 2
_DASHES: dict[str, Dash] = {"validation, robust": "solid", "training, robust": "dash", "validation, clean": "dot"}


def learning_chart(curves: Sequence[LearningCurve], overfitting: str, tints: Tints | None = None) -> Chart:
    """Robust accuracy over epochs on training and validation images; they diverge when the network overfits.

    Args:
        curves: one per configuration and kind.
        overfitting: a conclusion on overfitting, in words.
        tints: the colour of each name.
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    tints = tints or tints_of(names)
    folded = len(names) > _FEW_NAMES  # show only the most important lines; the legend has the others
    longest = max(curve.epochs[-1] for curve in curves)
    spans = [_spans(curve) for curve in curves]
    several = [len(curve.runs) > 1 and curve.kind == "validation, robust" for curve in curves]
    bands = told_apart([span for span, of_several in zip(spans, several, strict=True) if of_several])
    series, rows = [], []
    for curve, span, of_several in zip(curves, spans, several, strict=True):
        banded = of_several and bands
        marks = [
            Mark(
                epoch,
                figure.value,
                None,
                figure.interval if banded else None,
                tip=f"{curve.name}\n{curve.kind}, epoch {epoch:g}: {figure.value:.1f} %",
            )
            for epoch, figure in span.items()
        ]
        keys = (curve.name, curve.kind)
        few = longest <= _FEW_EPOCHS
        series.append(Series(tuple(marks), tint(tints[curve.name]), keys, _DASHES[curve.kind], band=banded, points=few))
        if curve.enlarged in span:
            tip = f"{curve.name}\nenlarged, epoch {curve.enlarged}"
            switch = Mark(curve.enlarged, span[curve.enlarged].value, tip=tip, label="enlarged")
            series.append(Series((switch,), tint(tints[curve.name]), keys, shape=_DIAMOND))
        rows += [
            (curve.name, curve.kind, Cell(f"{epoch:g}", epoch), Cell(f"{one.value:.1f}", one.value, one.interval))
            for epoch, one in span.items()
        ]
    kinds = [kind for kind in _DASHES if any(curve.kind == kind for curve in curves)]
    legend = [Key(name, tint(tints[name])) for name in names]
    legend += [Key(kind, MUTED, _DASHES[kind], not folded or kind == "validation, robust") for kind in kinds]
    return Chart(
        name="training",
        title="Accuracy over epochs",
        alt=f"Lines over epochs for {', '.join(names)}. {overfitting}",
        plot=Plot(_epochs(longest), percent_axis("accuracy (%)"), tuple(series), tuple(legend)),
        data=table(
            ("configuration", "images", "epoch", "accuracy (%), mean over seeds"),
            rows,
            "Accuracy over epochs: mean over seeds, with the lowest and highest seed as low and high",
        ),
        caption="Solid: robust, validation images. Dashed: robust, training images. Dotted: clean, validation images. "
        f"Means over seeds{'; bands span the seeds' * (bands and any(several))}. If the dashed line rises while the "
        "solid one falls, that is robust overfitting."
        + (" Diamonds: the first epoch with larger maps." if any(curve.enlarged for curve in curves) else "")
        + (" Press an entry of the legend to show its lines." if folded else ""),
        height_px=400,
    )


def _spans(curve: LearningCurve) -> dict[float, Measured]:
    """Mean, lowest and highest seed in percent by epoch."""
    shares = 100 * np.array(curve.runs)
    spans = zip(shares.mean(0).tolist(), shares.min(0).tolist(), shares.max(0).tolist(), strict=True)
    return {float(epoch): Measured(*span) for epoch, span in zip(curve.epochs, spans, strict=True)}


def _epochs(longest: int) -> Axis:
    """From the first to the last epoch; each has its number where there are few."""
    ticks = tuple((float(n), str(n)) for n in range(1, longest + 1)) if longest <= _FEW_EPOCHS else ()
    return Axis("epoch", 1 if longest > 1 else 0, longest if longest > 1 else 2, ticks)


@dataclass(frozen=True)
class DepthSeries:
    """A figure per stage of one network.

    Attributes:
        name: name of the network.
        first_order: the first-order gain; None if not known.
        reached: the gain of an attack, likewise.
        maps: sizes of the maps, such as ``8x8``.
    """

    name: str
    first_order: tuple[Measured | None, ...]
    reached: tuple[Measured | None, ...]
    maps: tuple[str, ...]


def depth_chart(
    stages: Sequence[str], series: Sequence[DepthSeries], unit: str, steps: int, tints: Tints | None = None
) -> Chart:
    """The perturbation gain on the pooled features of each stage."""
    tints = tints or tints_of(one.name for one in series)
    drawn, rows = [], []
    kinds: dict[str, Dash] = {"first order": "solid", f"PGD, {steps} steps": "dash"}
    for one in series:
        for (kind, dash), figures in zip(kinds.items(), (one.first_order, one.reached), strict=True):
            known = [(n, figure) for n, figure in enumerate(figures) if figure is not None]
            marks = [
                Mark(
                    n,
                    figure.value,
                    None,
                    figure.interval,
                    tip=f"{one.name}, {kind}\n{stages[n]}, map {one.maps[n]}: {figure}",
                )
                for n, figure in known
            ]
            if not marks:
                continue
            drawn.append(Series(tuple(marks), tint(tints[one.name]), (one.name, kind), dash))
            rows += [(one.name, stages[n], one.maps[n], kind, Cell(str(f), f.value, f.interval)) for n, f in known]
    shown = {key for each in drawn for key in each.keys}
    legend = [Key(one.name, tint(tints[one.name])) for one in series if one.name in shown]
    legend += [Key(kind, MUTED, dash) for kind, dash in kinds.items() if kind in shown]
    return Chart(
        name="depth",
        title="Perturbation gain along the depth",
        alt="Lines over the stages from the image to the last map. At the last: "
        + "; ".join(f"{one.name} {one.first_order[-1].value:.3g}" for one in series if one.first_order[-1]),
        plot=Plot(
            names_axis(stages, "stage, from the image to the last map"),
            Axis(f"gain ({unit})", 0),
            tuple(drawn),
            tuple(legend),
        ),
        data=table(
            ("configuration", "stage", "map", "gain", f"gain ({unit}) [95 %]"),
            rows,
            "Perturbation gain along the depth",
        ),
        caption="How far the budget moves the pooled features of a stage. Bars: 95 % intervals over images.",
        height_px=360,
    )

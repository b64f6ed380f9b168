"""Plots over epochs and along the depth of a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustmaps.engine.measured import Measured
from robustmaps.engine.tables import Cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._parts import Tints, Trace, axis, band, bars, colour, percent_axis, plain, tints_of


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy over epochs for several runs.

    Attributes:
        name: name of the configuration.
        kind: what is measured, such as ``validation, robust``.
        epochs: the epochs, from 1.
        runs: accuracies per run and epoch.
    """

    name: str
    kind: str
    epochs: tuple[int, ...]
    runs: tuple[tuple[float, ...], ...]


_FEW_EPOCHS = 15
_FEW_NAMES = 3
_DASHES = {"validation, robust": "solid", "training, robust": "dash", "validation, clean": "dot"}


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
    traces: list[Trace] = []
    rows = []
    for curve in curves:
        index = tints[curve.name]
        shares = 100 * np.array(curve.runs)
        means = shares.mean(0).tolist()
        spans = [Measured(*span) for span in zip(means, shares.min(0).tolist(), shares.max(0).tolist(), strict=True)]
        if len(curve.runs) > 1 and curve.kind == "validation, robust":
            traces.append(band(curve.epochs, spans, index, curve.name))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if longest <= _FEW_EPOCHS else "lines",
                "name": plain(f"{curve.name}: {curve.kind}"),
                "legendgroup": curve.name,
                "x": list(curve.epochs),
                "y": means,
                "line": {"color": colour(index), "width": 2, "dash": _DASHES[curve.kind]},
                "marker": {"size": 5},
                "hovertemplate": "%{y:.1f} %",
                **({"visible": "legendonly"} if folded and curve.kind != "validation, robust" else {}),
            }
        )
        rows += [
            (curve.name, curve.kind, Cell(str(epoch), epoch), Cell(f"{span.value:.1f}", span.value, span.interval))
            for epoch, span in zip(curve.epochs, spans, strict=True)
        ]
    return Chart(
        name="training",
        title="Accuracy over epochs",
        alt=f"Lines over epochs for {', '.join(names)}. {overfitting}",
        traces=traces,
        layout={
            "xaxis": axis("epoch", **({"dtick": 1} if longest <= _FEW_EPOCHS else {})),
            "yaxis": percent_axis("accuracy (%)"),
            "hovermode": "x unified",
        },
        data=table(
            ("configuration", "images", "epoch", "accuracy (%), mean over seeds"),
            rows,
            "Accuracy over epochs: mean over seeds, with the lowest and highest seed as low and high",
        ),
        caption="Solid: robust, validation images. Dashed: robust, training images. Dotted: clean, validation images. "
        "Means over seeds; bands span the seeds. If the dashed line rises while the solid one falls, that is robust "
        "overfitting." + (" Click grey entries in the legend to show their lines." if folded else ""),
        height_px=460,
    )


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
    traces: list[Trace] = []
    rows = []
    tints = tints or tints_of(one.name for one in series)
    for one in series:
        index = tints[one.name]
        for kind, dash, figures in (
            ("first order", "solid", one.first_order),
            (f"PGD, {steps} steps", "dash", one.reached),
        ):
            known = [(n, figure) for n, figure in enumerate(figures) if figure is not None]
            if not known:
                continue
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": plain(f"{one.name}: {kind}"),
                    "legendgroup": one.name,
                    "x": [plain(stages[n]) for n, _ in known],
                    "y": [figure.value for _, figure in known],
                    "error_y": {**bars([figure for _, figure in known]), "color": colour(index, 0.6)},
                    "line": {"color": colour(index), "width": 2, "dash": dash},
                    "customdata": [one.maps[n] for n, _ in known],
                    "hovertemplate": "map %{customdata}: %{y:.3g}",
                }
            )
            rows += [
                (
                    one.name,
                    stages[n],
                    one.maps[n],
                    kind,
                    Cell(f"{f.value:.3g} [{f.low:.3g}, {f.high:.3g}]", f.value, f.interval),
                )
                for n, f in known
            ]
    return Chart(
        name="depth",
        title="Perturbation gain along the depth",
        alt="Lines over the stages from the image to the last map. At the last: "
        + "; ".join(f"{one.name} {one.first_order[-1].value:.3g}" for one in series if one.first_order[-1]),
        traces=traces,
        layout={
            "xaxis": axis("stage, from the image to the last map", type="category"),
            "yaxis": axis(f"gain ({unit})", rangemode="tozero"),
            "hovermode": "x unified",
        },
        data=table(
            ("configuration", "stage", "map", "gain", f"gain ({unit}) [95 %]"),
            rows,
            "Perturbation gain along the depth",
        ),
        caption="How far the budget moves the pooled features of a stage. Bars: 95 % intervals over images.",
    )

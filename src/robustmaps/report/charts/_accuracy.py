"""Plots that compare accuracies."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.tables import Cell, percent_cell, points_cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._parts import Tints, Trace, axis, band, bars, colour, percent_axis, plain, tints_of

_NORMS = {"linf": "l∞", "l2": "l₂", "l1": "l₁"}
# Neighbours in rank are often close together.
_POSITIONS = ("top right", "bottom right", "top left", "bottom left")
_LARGEST_PX, _SMALLEST_PX = 34.0, 8.0


@dataclass(frozen=True)
class TradeOff:
    """The accuracy, robustness and cost of a configuration.

    Attributes:
        name: name of the configuration.
        group: the group that determines its colour, such as the network or the defence.
        clean, robust: shares with 95 % intervals.
        flops: operations of a forward pass; None if unknown.
        cost: the same as readable text.
    """

    name: str
    group: str
    clean: Measured
    robust: Measured
    flops: float | None
    cost: str


def trade_off_chart(points: Sequence[TradeOff], attack: str) -> Chart:
    """Clean against robust accuracy; the area of a point grows with the cost of the configuration."""
    groups = list(dict.fromkeys(point.group for point in points))
    largest = max((point.flops or 0 for point in points), default=0) or 1
    few = len(points) <= 8  # more names would overlap; hovering shows them
    traces: list[Trace] = []
    for index, group in enumerate(groups):
        mine = [point for point in points if point.group == group]
        clean, robust = ([getattr(p, name).scaled(100) for p in mine] for name in ("clean", "robust"))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text" if few else "markers",
                "name": plain(group),
                "x": [figure.value for figure in clean],
                "y": [figure.value for figure in robust],
                "error_x": {**bars(clean), "color": colour(index, 0.45)},
                "error_y": {**bars(robust), "color": colour(index, 0.45)},
                "text": [plain(p.name) for p in mine],
                "textposition": [_POSITIONS[points.index(p) % len(_POSITIONS)] for p in mine],
                "customdata": [plain(p.cost) for p in mine],
                "hovertemplate": "<b>%{text}</b><br>clean %{x:.1f} %<br>robust %{y:.1f} %<br>%{customdata}"
                "<extra></extra>",
                "marker": {
                    "size": [max(_SMALLEST_PX, _LARGEST_PX * ((p.flops or 0) / largest) ** 0.5) for p in mine],
                    "color": colour(index, 0.75),
                    "line": {"width": 1, "color": "$surface"},
                },
            }
        )
    best = max(points, key=lambda point: point.robust.value)
    return Chart(
        name="trade-off",
        title="Clean against robust accuracy",
        alt=f"Scatter plot of {len(points)} configurations. Most robust: {best.name}, clean "
        f"{100 * best.clean.value:.1f} percent, robust {100 * best.robust.value:.1f} percent.",
        traces=traces,
        layout={
            "xaxis": axis("clean accuracy (%)", ticksuffix=" %"),
            "yaxis": axis("robust accuracy (%)", ticksuffix=" %"),
            "hovermode": "closest",
        },
        caption=f"Robust accuracy: {attack}. Up and to the right is better. Bars: 95 % intervals. Area of a point: "
        f"operations of a forward pass, the largest being {max(points, key=lambda p: p.flops or 0).cost}."
        + ("" if few else " Hover over a point for its name."),
        height_px=460,
    )


def differences_chart(rows: Sequence[tuple[str, str, Measured]]) -> Chart:
    """The difference in robust accuracy of each configuration to its reference.

    Args:
        rows: a configuration, its reference, and the difference.
    """
    shown = list(reversed(rows))
    figures = [figure.scaled(100) for *_, figure in shown]
    traces: list[Trace] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "difference, 95 % interval",
            "x": [figure.value for figure in figures],
            "y": [plain(name) for name, *_ in shown],
            "customdata": [plain(other) for _, other, _ in shown],
            "error_x": {**bars(figures), "color": "$0"},
            "marker": {"size": 9, "color": "$0"},
            "hovertemplate": "<b>%{y}</b><br>%{x:+.1f} points against %{customdata}<extra></extra>",
        }
    ]
    named = [(name, other, points_cell(figure)) for name, other, figure in rows]
    title = "Gain in robust accuracy"
    return Chart(
        name="differences",
        title=title,
        alt=f"{title}: " + "; ".join(f"{name} {cell.value:+.1f} points against {other}" for name, other, cell in named),
        traces=traces,
        layout={
            "xaxis": axis("difference (points)", zeroline=True, zerolinewidth=2, zerolinecolor="$muted"),
            "yaxis": {"automargin": True, "type": "category", "range": [-0.6, len(rows) - 0.4]},
        },
        data=table(("configuration", "against", "gain (points)"), named, f"{title}, paired by image and seed"),
        caption="A difference is beyond chance if its interval does not include 0.",
        height_px=150 + 34 * len(rows),
    )


def radius_chart(
    series: Sequence[tuple[str, Sequence[tuple[float, Measured]]]], norm: str, attack: str, tints: Tints | None = None
) -> Chart:
    """Accuracy against the radius of the budget."""
    traces: list[Trace] = []
    tints = tints or tints_of(name for name, _ in series)
    for name, points in series:
        index = tints[name]
        radii, figures = [eps for eps, _ in points], [figure.scaled(100) for _, figure in points]
        traces.append(band(radii, figures, index, name))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(name),
                "legendgroup": name,
                "x": radii,
                "y": [figure.value for figure in figures],
                "line": {"color": colour(index), "width": 2},
                "customdata": [
                    [as_fraction(eps), *figure.interval] for eps, figure in zip(radii, figures, strict=True)
                ],
                "hovertemplate": "eps %{customdata[0]}: %{y:.1f} % [%{customdata[1]:.1f}, %{customdata[2]:.1f}]",
            }
        )
    every = sorted({eps for _, points in series for eps, _ in points})
    rows = [
        (name, Cell(as_fraction(eps), eps), percent_cell(figure)) for name, points in series for eps, figure in points
    ]
    return Chart(
        name="radius",
        title="Robust accuracy over eps",
        alt="Accuracy falls with the radius of the budget. At the largest, "
        + f"{as_fraction(every[-1])}: "
        + "; ".join(f"{name} {100 * points[-1][1].value:.1f} percent" for name, points in series),
        traces=traces,
        layout={
            "xaxis": axis(
                f"eps ({_NORMS[norm]}, images in [0, 1])",
                tickmode="array",
                tickvals=every,
                ticktext=[as_fraction(eps) for eps in every],
            ),
            "yaxis": percent_axis("accuracy (%)"),
            "hovermode": "x unified",
        },
        data=table(("configuration", f"eps, {norm}", "accuracy [95 %]"), rows, f"Accuracy over eps, {attack}"),
        caption=f"{attack}. The value at 0 is clean accuracy. Bands: 95 % intervals.",
    )

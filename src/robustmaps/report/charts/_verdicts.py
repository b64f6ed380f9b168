"""Plots of verdicts on the images, by attack and by class."""

from collections.abc import Sequence

from robustmaps.engine.measured import Measured
from robustmaps.engine.tables import Cell, percent_cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._parts import Tints, Trace, axis, bars, colour, percent_axis, plain, tints_of

# Green is reserved for robust images.
_BROKEN = (1, 4, 3, 0, 6)


def cascade_chart(
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], attack: str, *, alone: bool = False
) -> Chart:
    """The shares of images that are wrong without an attack, broken by each attack in turn, or robust.

    Args:
        rows: per configuration the shares by verdict.
        attack: the attacks, budget and images, in words.
        alone: whether each attack was run on all images.
    """
    kinds = list(dict.fromkeys(kind for _, shares in rows for kind, _ in shares))
    names = [name for name, _ in rows]
    broken = [kind for kind in kinds if kind not in ("robust", "wrong, clean")]
    tints = {
        "robust": "$good",
        "wrong, clean": "$muted/0.55",
        **{kind: colour(_BROKEN[i % len(_BROKEN)]) for i, kind in enumerate(broken)},
    }
    traces: list[Trace] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": plain(kind),
            "y": [plain(name) for name in reversed(names)],
            "x": [100 * dict(shares).get(kind, 0.0) for _, shares in reversed(rows)],
            "marker": {"color": tints[kind]},
            "hovertemplate": f"<b>%{{y}}</b><br>{plain(kind).replace('%', '')}: %{{x:.1f}} % of images<extra></extra>",
        }
        for kind in ["robust", *broken, "wrong, clean"]
        if kind in kinds
    ]
    data = table(
        ("configuration", *(f"{kind} (%)" for kind in kinds)),
        [
            (
                name,
                *(
                    Cell(f"{100 * dict(shares).get(kind, 0.0):.1f}", 100 * dict(shares).get(kind, 0.0))
                    for kind in kinds
                ),
            )
            for name, shares in rows
        ],
        f"Images broken by each attack, in % of all, {attack}",
    )
    return Chart(
        name="cascade",
        title="Images broken by each attack",
        alt="Stacked bars: the share of images that stayed right, that each attack broke, and that were wrong before. "
        + "; ".join(f"{name}: {100 * dict(shares).get('robust', 0.0):.1f} percent robust" for name, shares in rows),
        traces=traces,
        layout={
            "barmode": "stack",
            "xaxis": percent_axis("share of the images (%)"),
            "yaxis": {"automargin": True, "type": "category"},
            "legend": {"traceorder": "normal"},
        },
        data=data,
        caption="Each attack is run on all images; its bar shows those that no earlier one broke."
        if alone
        else "Each attack is run only on images that no earlier one broke; its bar shows the images it adds.",
        height_px=170 + 36 * len(rows),
    )


def classes_chart(
    classes: Sequence[str],
    series: Sequence[tuple[str, Sequence[Measured]]],
    attack: str,
    tints: Tints | None = None,
) -> Chart:
    """Robust accuracy per class."""
    traces: list[Trace] = []
    tints = tints or tints_of(name for name, _ in series)
    for name, shares in series:
        index = tints[name]
        figures = [share.scaled(100) for share in shares]
        traces.append(
            {
                "type": "bar",
                "name": plain(name),
                "x": [plain(label) for label in classes],
                "y": [figure.value for figure in figures],
                "error_y": {**bars(figures), "color": "$muted"},
                "marker": {"color": colour(index)},
                "hovertemplate": "<b>%{x}</b><br>%{y:.1f} %<extra>%{fullData.name}</extra>",
            }
        )
    rows = [(label, *(percent_cell(shares[i]) for _, shares in series)) for i, label in enumerate(classes)]
    return Chart(
        name="classes",
        title="Robust accuracy per class",
        alt="Bars per class. "
        + " ".join(
            f"{name}: weakest {_weakest(classes, shares)}, strongest {_strongest(classes, shares)}."
            for name, shares in series
        ),
        traces=traces,
        layout={
            "barmode": "group",
            "xaxis": axis("class", type="category"),
            "yaxis": percent_axis("robust accuracy (%)"),
        },
        data=table(
            ("class", *(name for name, _ in series)), rows, f"Robust accuracy per class with 95 % intervals, {attack}"
        ),
        caption=f"{attack}. Bars: 95 % intervals by bootstrap over images and seeds, Wilson's for one seed.",
    )


def _weakest(classes: Sequence[str], shares: Sequence[Measured]) -> str:
    value, label = min((share.value, label) for share, label in zip(shares, classes, strict=True))
    return f"{label} ({100 * value:.0f} percent)"


def _strongest(classes: Sequence[str], shares: Sequence[Measured]) -> str:
    value, label = max((share.value, label) for share, label in zip(shares, classes, strict=True))
    return f"{label} ({100 * value:.0f} percent)"

"""Plots of verdicts on the images, by attack and by class."""

from collections.abc import Sequence

from robustmaps.engine.measured import Measured
from robustmaps.engine.tables import Cell, percent_cell, table
from robustmaps.report._blocks import Chart
from robustmaps.report.charts._plot import (
    GOOD,
    MUTED,
    Key,
    Mark,
    Plot,
    Series,
    Tints,
    interval_text,
    names_axis,
    percent_axis,
    tint,
    tints_of,
)

# Green is reserved for robust images.
_BROKEN = (1, 4, 3, 0, 6)
_HALF_A_BAR = 0.34


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
    broken = [kind for kind in kinds if kind not in ("robust", "wrong, clean")]
    tints = {
        "robust": GOOD,
        "wrong, clean": MUTED,
        **{kind: tint(_BROKEN[i % len(_BROKEN)]) for i, kind in enumerate(broken)},
    }
    order = [kind for kind in ("robust", *broken, "wrong, clean") if kind in kinds]
    series = []
    for number, kind in enumerate(order):
        marks = []
        for place, (name, shares) in enumerate(rows):
            share, before = (100 * sum(dict(shares).get(one, 0.0) for one in of) for of in ([kind], order[:number]))
            box = (before, before + share, place - _HALF_A_BAR, place + _HALF_A_BAR)
            marks.append(Mark(before + share, place, box=box, tip=f"{name}\n{kind}: {share:.1f} % of images"))
        series.append(Series(tuple(marks), tints[kind]))
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
        plot=Plot(
            percent_axis("share of the images (%)"),
            names_axis([name for name, _ in rows]),
            tuple(series),
            tuple(Key(kind, tints[kind]) for kind in order),
        ),
        data=data,
        caption="Each attack is run on all images; its bar shows those that no earlier one broke."
        if alone
        else "Each attack is run only on images that no earlier one broke; its bar shows the images it adds.",
        height_px=76 + 36 * len(rows),
    )


def classes_chart(
    classes: Sequence[str],
    series: Sequence[tuple[str, Sequence[Measured]]],
    attack: str,
    tints: Tints | None = None,
) -> Chart:
    """Robust accuracy per class."""
    tints = tints or tints_of(name for name, _ in series)
    width = 2 * _HALF_A_BAR / len(series)
    drawn = []
    for number, (name, shares) in enumerate(series):
        marks = []
        for place, (label, share) in enumerate(zip(classes, shares, strict=True)):
            figure, left = share.scaled(100), place - _HALF_A_BAR + number * width
            tip = f"{label}: {interval_text(figure)}\n{name}"
            box = (left, left + width, 0, figure.value)
            marks.append(Mark(left + width / 2, figure.value, None, figure.interval, box, tip))
        drawn.append(Series(tuple(marks), tint(tints[name]), (name,)))
    rows = [(label, *(percent_cell(shares[i]) for _, shares in series)) for i, label in enumerate(classes)]
    return Chart(
        name="classes",
        title="Robust accuracy per class",
        alt="Bars per class. "
        + " ".join(
            f"{name}: weakest {_weakest(classes, shares)}, strongest {_strongest(classes, shares)}."
            for name, shares in series
        ),
        plot=Plot(
            names_axis(classes, "class"),
            percent_axis("robust accuracy (%)"),
            tuple(drawn),
            tuple(Key(name, tint(tints[name])) for name, _ in series),
        ),
        data=table(
            ("class", *(name for name, _ in series)), rows, f"Robust accuracy per class with 95 % intervals, {attack}"
        ),
        caption=f"{attack}. Bars: 95 % intervals by bootstrap over images and seeds, Wilson's for one seed.",
        height_px=340,
    )


def _weakest(classes: Sequence[str], shares: Sequence[Measured]) -> str:
    value, label = min((share.value, label) for share, label in zip(shares, classes, strict=True))
    return f"{label} ({100 * value:.0f} percent)"


def _strongest(classes: Sequence[str], shares: Sequence[Measured]) -> str:
    value, label = max((share.value, label) for share, label in zip(shares, classes, strict=True))
    return f"{label} ({100 * value:.0f} percent)"

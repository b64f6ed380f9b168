"""A page with one block of each kind, whose names do their worst."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robustmaps.engine.measured import Measured
from robustmaps.engine.tables import Cell, Table, table
from robustmaps.figures import png_of_image
from robustmaps.report import (
    Chart,
    Code,
    DepthSeries,
    Fact,
    Facts,
    Gallery,
    LearningCurve,
    Listing,
    Missing,
    Page,
    Part,
    Picture,
    Section,
    Text,
    Tile,
    TradeOff,
    cascade_chart,
    classes_chart,
    depth_chart,
    differences_chart,
    learning_chart,
    radius_chart,
    trade_off_chart,
)

EVIL = "<script>window.evil = 1</script> $0 %{x} & \"q\" 'a' </title>"


def some_page(*names: str, titles: Sequence[str] = ("",)) -> Page:
    half = Measured(0.5, 0.4, 0.6)
    rates = [Measured(0.1 * n, 0.1 * n - 0.05, 0.1 * n + 0.05) for n in range(1, len(names) + 1)]
    rows = [(name, Cell(f"{10 * n} % [0, 100]", 10.0 * n, (0, 100))) for n, name in enumerate(names, 1)]
    leaderboard = table(("configuration", "robust"), [*rows, ("unknown", "-")], "Leaderboard")
    tile = Tile(png_of_image(np.full((3, 4, 4), 0.5, np.float32)), f"picture of {names[0]}", names[0], names[0], False)
    charts = [
        trade_off_chart(
            [TradeOff(n, "", "", half, r, 1e6, "1 MFLOP") for n, r in zip(names, rates, strict=True)], "pgd"
        ),
        differences_chart([(name, names[0], rate) for name, rate in zip(names, rates, strict=True)]),
        learning_chart([LearningCurve(n, "validation, robust", (1, 2), ((0.1, 0.2), (0.2, 0.3))) for n in names], ""),
        cascade_chart([(n, [("robust", 0.5), ("pgd", 0.3), ("wrong, clean", 0.2)]) for n in names], "pgd"),
        radius_chart([(n, [(0.0, half), (0.1, r)]) for n, r in zip(names, rates, strict=True)], "linf", "pgd"),
        classes_chart(names, [(names[0], rates)], "pgd"),
        depth_chart(
            ["one", "two"], [DepthSeries(n, (half, half), (None, half), ("8x8", "4x4")) for n in names], "x", 5
        ),
    ]
    return Page(
        title=names[0],
        kind="Report of a test",
        parts=tuple(_part(title, names, leaderboard, charts, tile) for title in titles),
        footer=names[0],
        warnings=(names[0],),
    )


def _part(title: str, names: Sequence[str], leaderboard: Table, charts: Sequence[Chart], tile: Tile) -> Part:
    prefix = f"{title}-" if title else ""
    listing = Listing(f"{prefix}leaderboard", leaderboard, sortable=True, filterable=True)
    name = names[0]
    rest = (Text(name), Missing(name, name), Picture(name, tile.png, name, name), Code(name, name))
    return Part(
        title,
        answer=(f"{names[0]} is best.",),
        facts=Facts((Fact("Robust accuracy", "50 %", names[0]),)),
        sections=(
            Section(f"{prefix}leaderboard", "Leaderboard", (listing,)),
            Section(f"{prefix}plots", "Plots", tuple(replace(c, name=f"{prefix}{c.name}") for c in charts)),
            Section(f"{prefix}pictures", "Pictures", (Gallery(names[0], ((names[0], (tile, tile)),), names[0]),)),
            Section(
                f"{prefix}rest",
                "Rest",
                rest,
            ),
        ),
    )

"""Draw docs/images/gains.png from docs/comparison-tables.md: every measured gain, and what longer training buys.

python website/gains.py
"""

import argparse
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pictures import IMAGES, save
from robustmaps.figures._plots import _COLOURS, _STYLE

TABLES = IMAGES.parent / "comparison-tables.md"
DIFFERENCE = re.compile(r"([+-]\d+\.\d) \[([+-]\d+\.\d), ([+-]\d+\.\d)\]")
RATE = re.compile(r"(\d+\.\d) % \[(\d+\.\d), (\d+\.\d)\]")
SEES = re.compile(r"(?:^|sees )(\d+) %")
WHOLE = 100
SHORT = {"Fashion-MNIST": "Fashion-MNIST", "Photographs": "photographs", "": "digits"}
"""Places as the figure has them, by the beginning of a section's title."""
KINDS = {
    "the last map sees the whole image": _COLOURS[0],
    "the last map sees less than the image": _COLOURS[1],
    "trained without a defence": _COLOURS[3],
}


@dataclass(frozen=True)
class Gain:
    """A difference of robust accuracy in points, enlarged minus plain, with its 95 % interval."""

    label: str
    value: float
    low: float
    high: float
    kind: str


def tables(text: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """The tables below their section's title: header and rows."""
    title, rows = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("*", "").replace("`", "") for cell in line.strip("|").split("|")])
            continue
        if rows:
            yield title, rows[0], rows[2:]
            rows = []
        if line.startswith("## "):
            title = line[3:]


def gains(text: str) -> Iterator[Gain]:
    """All differences in the tables."""
    for title, header, rows in tables(text):
        place = next((short for start, short in SHORT.items() if title.startswith(start)), "")
        for row in rows:
            beside = [cell for name, cell in zip(header, row, strict=True) if name.startswith("sees")]
            for name, cell in zip(header, row, strict=True):
                if (found := DIFFERENCE.search(cell)) is None or (header[0] == "convolutions" and row[0] == "three"):
                    continue  # the latter repeats a row of the table above it
                share = SEES.search(cell) or (SEES.search(beside[-1]) if beside else None)
                yield Gain(
                    _label(place, header[0], row[0], name),
                    *map(float, found.groups()),
                    list(KINDS)[2 if "standard" in row[0] else share is not None and float(share[1]) < WHOLE],
                )


def _label(place: str, first: str, row: str, column: str) -> str:
    if row.startswith("--enlarge"):
        change = "images x2" if "upsample" in row else row.removeprefix("--")
        return f"{place}, three convolutions: {change}"
    what = {"channels": f"{row} channels", "epochs": f"{row} epochs", "convolutions": f"{row} convolutions"}
    change = "images x2" if "x2" in column or "gain" not in column else column.removeprefix("gain of ")
    return f"{place}, {what.get(first, row)}: {change}"


def lengths(text: str) -> dict[str, list[tuple[float, float, float, float]]]:
    """Operations, and robust accuracy with its interval, by network, from the table of lengths."""
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for title, header, rows in tables(text):
        if not title.startswith("Length") or "operations" not in header:
            continue
        for row in rows:
            spent = 0.0
            for name, cell in zip(header, row, strict=True):
                if name == "operations":
                    spent = float(cell.removesuffix("x"))
                elif (rate := RATE.match(cell)) is not None:
                    found.setdefault(name, []).append((spent, *map(float, rate.groups())))
    return found


def draw_gains(axes: Axes, found: list[Gain]) -> None:
    """One line each, the largest on top."""
    found = sorted(found, key=lambda gain: gain.value)
    for number, gain in enumerate(found):
        shown = gain.low > 0 or gain.high < 0
        axes.plot([gain.low, gain.high], [number, number], color=KINDS[gain.kind], linewidth=1.4 if shown else 0.7)
        face = KINDS[gain.kind] if shown else "white"
        axes.plot(gain.value, number, "o", color=KINDS[gain.kind], markerfacecolor=face, markersize=4)
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_yticks(range(len(found)), [gain.label for gain in found], fontsize=7)
    axes.set_ylim(-4.2, len(found) - 0.2)
    axes.set_xlabel("points of robust accuracy gained, with 95 % interval")
    axes.set_title("Same epochs, so more operations for the larger map", loc="left")
    for kind, colour in KINDS.items():
        axes.plot([], [], "o-", color=colour, label=kind, markersize=4)
    axes.plot([], [], "o", color="0.4", markerfacecolor="white", label="empty: no gain or loss is shown", markersize=4)
    axes.legend(fontsize=8, loc="lower right")


def draw_lengths(axes: Axes, found: dict[str, list[tuple[float, float, float, float]]]) -> None:
    """Robust accuracy by operations."""
    names = {"122": "plain", "122, images x2": "images x2"}
    for (name, points), colour in zip(found.items(), (_COLOURS[2], _COLOURS[0]), strict=True):
        spent, rate, low, high = zip(*points, strict=True)
        axes.fill_between(spent, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(spent, rate, "o-", color=colour, markersize=4)
        axes.annotate(names[name], (spent[-1], rate[-1]), (6, -3), textcoords="offset points", color=colour)
    ticks = sorted({point[0] for points in found.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xlim(right=32)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="training operations (20 plain epochs: 1x)", ylabel="robust accuracy (%)")
    axes.set_title("Same operations", loc="left")


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES / "gains.png")
    given = parser.parse_args()
    text = TABLES.read_text(encoding="utf-8")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        draw_gains(left, list(gains(text)))
        draw_lengths(right, lengths(text))
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=130)
    save(Image.open(drawn), given.out)


if __name__ == "__main__":
    main()

"""A transfer matrix as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from robustmaps.engine.text import visible
from robustmaps.figures._plots import _STYLE, save_figure

_LONGEST = 36


def plot_transfer(
    path: str | Path, names: Sequence[str], accuracy: Sequence[Sequence[Mapping[str, Any]]], title: str
) -> None:
    """Accuracy of each network (columns) under the attacks made on each (rows), with 95 % intervals.

    Args:
        path: the file to write, a PNG, PDF or SVG by its ending.
        names: the networks.
        accuracy: by source and target, ``value`` and ``interval`` of a share.
        title: the title.
    """
    shares = 100 * np.array([[cell["value"] for cell in row] for row in accuracy])
    side = 1.6 * len(names)
    labels = [_short(visible(name)) for name in names]
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(side + 2.5, side + 1.5), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, vmin=0, vmax=100, cmap="viridis")
        for row, cells in enumerate(accuracy):
            for column, cell in enumerate(cells):
                low, high = (100 * bound for bound in cell["interval"])
                colour = "white" if shares[row, column] < 60 else "black"
                text = f"{shares[row, column]:.1f}\n[{low:.1f}, {high:.1f}]"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set_xticks(range(len(names)), labels, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), labels)
        axes.set(xlabel="tried on", ylabel="attack made on", title=visible(title))
        save_figure(figure, path)


def _short(name: str) -> str:
    """The end of a long name, in which runs and files differ; the matrix needs the room."""
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"

"""The plots and galleries of a page as files for a paper, PDF and SVG each."""

import io
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.image import imread

from robustmaps.engine.files import remove
from robustmaps.engine.text import visible
from robustmaps.engine.writing.outputs import claim_folder, is_picture
from robustmaps.engine.writing.temporaries import is_leftover
from robustmaps.figures import save_figure
from robustmaps.report._blocks import Chart, Gallery, Page
from robustmaps.report.charts._paper import COLUMN_IN, draw_for_paper

_FORMS = (".pdf", ".svg")


def claim_figures(folder: str | Path) -> None:
    """Refuse a folder with anything but figures of ours, before the page is made.

    Raises:
        InputError: the folder contains something else.
    """
    claim_folder(folder, _is_figures, "a folder of figures", option="--figures")


def write_figures(folder: str | Path, page: Page, width_in: float = COLUMN_IN) -> tuple[Path, ...]:
    """Write every plot and gallery of a page, as PDF and as SVG; those of an earlier page are replaced.

    Args:
        folder: the folder to write.
        page: the page.
        width_in: the width of each figure in inches.

    Returns:
        The PDF files, in the order of the page.

    Raises:
        InputError: the folder contains something else.
    """
    target = Path(folder)
    claim_figures(target)
    made: dict[str, Figure] = {}
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Chart):
                made[block.name] = draw_for_paper(block.plot, width_in)
            elif isinstance(block, Gallery):
                made[_file_name(section.name, block.title)] = _draw_gallery(block, width_in)
    for name, figure in made.items():
        for form in _FORMS:
            save_figure(figure, target / f"{name}{form}")
    for path in target.glob("*"):
        if path.stem not in made and path.suffix in _FORMS and is_picture(path):
            remove(path)
    return tuple(target / f"{name}{_FORMS[0]}" for name in made)


def _is_figures(folder: Path) -> bool:
    return all(path.suffix in _FORMS and is_picture(path) for path in folder.iterdir() if not is_leftover(path))


def _file_name(section: str, title: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
    return f"{section}-{words}" if words else section


def _draw_gallery(gallery: Gallery, width_in: float) -> Figure:
    columns = max(len(tiles) for _, tiles in gallery.rows)
    side = width_in / (columns + 0.6)
    with mpl.rc_context({"font.size": 6, "text.parse_math": False}):
        figure = Figure(figsize=(width_in, (side + 0.22) * len(gallery.rows)), layout="constrained")
        grid = figure.subplots(len(gallery.rows), columns, squeeze=False)
        for row, (name, tiles) in zip(grid, gallery.rows, strict=True):
            for axes in row:
                axes.set(xticks=[], yticks=[])
                axes.set_frame_on(False)
            row[0].set_ylabel(visible(name), fontsize=5)
            for axes, tile in zip(row, tiles, strict=False):
                axes.imshow(imread(io.BytesIO(tile.png)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set_title(visible(tile.title), fontsize=5, pad=1.5)
                colour = {True: "#00704f", False: "#b3261e", None: "#59616b"}[tile.right]
                axes.set_xlabel(visible(tile.note), fontsize=5, labelpad=1, color=colour)
    return figure

"""Figures: plots and rasters of plain values."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.figures._analysis_plots import AttackedMaps, plot_gains, plot_maps, plot_plan
    from robustmaps.figures._labels import Box, place_labels, text_width, wrapped
    from robustmaps.figures._plots import (
        AttackedImage,
        plot_attacked,
        plot_curves,
        plot_eps_curve,
        plot_samples,
        save_figure,
    )
    from robustmaps.figures._rasters import png_of_change, png_of_image, png_of_map
    from robustmaps.figures._study_plots import plot_lines, plot_planes
    from robustmaps.figures._theory_plots import plot_theory
    from robustmaps.figures._transfer_plot import plot_transfer

__all__ = [
    "AttackedImage",
    "AttackedMaps",
    "Box",
    "place_labels",
    "plot_attacked",
    "plot_curves",
    "plot_eps_curve",
    "plot_gains",
    "plot_lines",
    "plot_maps",
    "plot_plan",
    "plot_planes",
    "plot_samples",
    "plot_theory",
    "plot_transfer",
    "png_of_change",
    "png_of_image",
    "png_of_map",
    "save_figure",
    "text_width",
    "wrapped",
]

__getattr__, __dir__ = lazy(__name__, __file__)

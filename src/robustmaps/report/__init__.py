"""Layer 5: tables, plots and the page, all of plain values."""

from robustmaps.report._analysis_plots import AttackedMaps, plot_gains, plot_maps, plot_plan
from robustmaps.report._chart_parts import percent_cell, points_cell
from robustmaps.report._charts import TradeOff, differences_chart, radius_chart, trade_off_chart
from robustmaps.report._depth_charts import DepthSeries, LearningCurve, depth_chart, learning_chart
from robustmaps.report._page import (
    Block,
    Chart,
    Code,
    Fact,
    Facts,
    Gallery,
    Listing,
    Missing,
    Page,
    Part,
    Section,
    Text,
    Tile,
)
from robustmaps.report._plots import AttackedImage, plot_attacked, plot_curves, plot_eps_curve, plot_samples
from robustmaps.report._rasters import png_of_change, png_of_image, png_of_map
from robustmaps.report._tables import Cell, Table, in_markdown, table
from robustmaps.report._theory_plots import plot_theory
from robustmaps.report._verdict_charts import cascade_chart, classes_chart
from robustmaps.report._writing import render_markdown, render_page, write_report

__all__ = [
    "AttackedImage",
    "AttackedMaps",
    "Block",
    "Cell",
    "Chart",
    "Code",
    "DepthSeries",
    "Fact",
    "Facts",
    "Gallery",
    "LearningCurve",
    "Listing",
    "Missing",
    "Page",
    "Part",
    "Section",
    "Table",
    "Text",
    "Tile",
    "TradeOff",
    "cascade_chart",
    "classes_chart",
    "depth_chart",
    "differences_chart",
    "in_markdown",
    "learning_chart",
    "percent_cell",
    "plot_attacked",
    "plot_curves",
    "plot_eps_curve",
    "plot_gains",
    "plot_maps",
    "plot_plan",
    "plot_samples",
    "plot_theory",
    "png_of_change",
    "png_of_image",
    "png_of_map",
    "points_cell",
    "radius_chart",
    "render_markdown",
    "render_page",
    "table",
    "trade_off_chart",
    "write_report",
]

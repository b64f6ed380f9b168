"""The report page on runs: its blocks, sections and charts."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.engine.text import shell
    from robustmaps.report._blocks import (
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
        Picture,
        Section,
        Text,
        Tile,
    )
    from robustmaps.report._figures import write_figures
    from robustmaps.report._ready import claim_ready, report_ready
    from robustmaps.report._report import Report, report
    from robustmaps.report._writing import render_markdown, render_page, write_report
    from robustmaps.report.charts._accuracy import TradeOff, differences_chart, radius_chart, trade_off_chart
    from robustmaps.report.charts._depth import DepthSeries, LearningCurve, depth_chart, learning_chart
    from robustmaps.report.charts._verdicts import cascade_chart, classes_chart
    from robustmaps.report.sections._material import Material
    from robustmaps.report.sections._ready import ReadyResult, read_ready
    from robustmaps.report.sections._registry import SectionRow

__all__ = [
    "Block",
    "Chart",
    "Code",
    "DepthSeries",
    "Fact",
    "Facts",
    "Gallery",
    "LearningCurve",
    "Listing",
    "Material",
    "Missing",
    "Page",
    "Part",
    "Picture",
    "ReadyResult",
    "Report",
    "Section",
    "SectionRow",
    "Text",
    "Tile",
    "TradeOff",
    "cascade_chart",
    "claim_ready",
    "classes_chart",
    "depth_chart",
    "differences_chart",
    "learning_chart",
    "radius_chart",
    "read_ready",
    "render_markdown",
    "render_page",
    "report",
    "report_ready",
    "shell",
    "trade_off_chart",
    "write_figures",
    "write_report",
]

__getattr__, __dir__ = lazy(__name__, __file__)

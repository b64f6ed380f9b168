"""The sections of the page, each with its row."""

from robustmaps.report.sections._registry import SectionRow, register

__all__ = ["SectionRow", "register"]

"""What several sections say alike."""

from robustmaps.report._blocks import Block, Missing, Text
from robustmaps.report.sections._commands import shell
from robustmaps.studies import Statistics

MOST_LINES = 8
"""Configurations in one plot of lines: as many as there are colours."""


def not_evaluated(study: Statistics) -> Missing:
    """What stands for figures that there are none of yet."""
    command = shell("robustmaps", "evaluate", study.best.runs[0].folder, "--attack", "autoattack")
    return Missing("Nothing has been evaluated yet. This does it:", command)


def some_only(count: int, total: int) -> list[Block]:
    """What is said where a plot has room for some configurations only."""
    text = f"{count} of {total} configurations: the most robust, and the one that the first is shown beside."
    return [Text(text, "note")] if total > count else []

"""Texts and figures shared by several sections."""

from dataclasses import dataclass

from robustmaps.engine.measured import Measured
from robustmaps.engine.text import shell
from robustmaps.report._blocks import Block, Missing, Text
from robustmaps.report.sections._commands import permission
from robustmaps.studies import Statistics


@dataclass(frozen=True)
class Share:
    """A share in a file of results, with its interval."""

    value: float
    interval: tuple[float, float]

    @property
    def measured(self) -> Measured:
        """For a cell of a table."""
        return Measured(self.value, *self.interval, percent=True)


MOST_LINES = 8
"""The largest number of configurations in one line plot: the number of colours."""


def not_evaluated(study: Statistics) -> Missing:
    """The placeholder for figures before the first evaluation."""
    run = study.best.runs[0]
    command = shell("robustmaps", "evaluate", run.folder, "--attack", "autoattack", *permission(run))
    return Missing("No run has been evaluated yet. To evaluate one:", command)


def some_only(count: int, total: int) -> list[Block]:
    """A note if a plot has room for only some of the configurations."""
    text = f"{count} of {total} configurations: the most robust ones, and the reference for the best."
    return [Text(text, "note")] if total > count else []

"""Progress for a person: a live bar on a terminal, a plain line now and then elsewhere. Always on standard error."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from robustmaps.cli._terminal._shared import rich_table, tell
from robustmaps.engine.progress import Progress
from robustmaps.engine.tables import table
from robustmaps.engine.text import visible

_PLAIN_EVERY_S = 10.0
_LABELS = {
    "loss": "loss",
    "clean_accuracy": "clean",
    "robust_accuracy": "robust",
    "images_per_s": "img/s",
    "data_share": "data",
}
# Told by the rest of the line.
_HIDDEN = ("attacked", "elapsed_s")


class Watch:
    """Shows progress of one or several tasks.

    Args:
        bars: the live display, None for plain lines.
    """

    def __init__(self, bars: Bars | None) -> None:
        self._bars = bars
        self._rows: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._last: dict[str, tuple[str, float]] = {}

    def __call__(self, progress: Progress) -> None:
        """Show a report of the only task."""
        self.of("", progress)

    def note(self, text: str) -> None:
        """Show a line beside the reports."""
        tell(f"robustmaps: {text}")

    def of(self, title: str, progress: Progress) -> None:
        """Show a report of the task with that title."""
        label = visible(": ".join(filter(None, (title, progress.phase))))
        if self._bars is None:
            self._plain(title, label, progress)
            return
        if title not in self._rows:
            self._rows[title] = self._bars.add_task(label, eta="", figures="")
        self._bars.update(
            self._rows[title],
            description=label,
            completed=progress.done,
            total=progress.total,
            figures=_figures(progress.figures),
            eta=_eta(progress.remaining_s),
        )

    def _plain(self, title: str, label: str, progress: Progress) -> None:
        now = time.monotonic()
        told, when = self._last.get(title, ("", self._began))
        # Of one task every phase is told when it ends, once; several would drown each other.
        finished = not title and progress.done == progress.total and progress.phase != told
        # What has only begun has no figures of its own yet.
        if progress.done == 0 or (now - when < _PLAIN_EVERY_S and not finished):
            return
        self._last[title] = (progress.phase if finished else told, now)
        parts = (
            f"{label}: {progress.done}/{progress.total} {progress.unit}",
            _figures(progress.figures),
            _eta(progress.remaining_s),
        )
        tell(", ".join(filter(None, parts)))


@contextmanager
def watching() -> Iterator[Watch]:
    """A display for the block."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        yield Watch(None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[eta]}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield Watch(bars)


class CascadeTable:
    """Shows an evaluation as a table, a row per attack, that is kept up to date.

    Args:
        live: the display.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: dict[str, Progress] = {}

    def __call__(self, progress: Progress) -> None:
        """Show a report."""
        self._rows[progress.phase] = progress
        columns = ("attack", "attacked", "survivors", "robust accuracy", "elapsed", "left")
        rows = [self._row(row) for row in self._rows.values()]
        self._live.update(rich_table(table(columns, rows, words=1)))

    def note(self, text: str) -> None:
        """Show a line above the table."""
        self._live.console.print(Text(visible(f"robustmaps: {text}")))

    @staticmethod
    def _row(progress: Progress) -> tuple[str, ...]:
        figures, count = progress.figures, f"{progress.done}/{progress.total}"
        if "survivors" not in figures:
            return (progress.phase, count, "", "", "", clock(progress.remaining_s))
        return (
            progress.phase,
            count,
            f"{figures['survivors']:.0f}",
            f"{100 * figures['robust_accuracy']:.1f} %",
            clock(figures["elapsed_s"]),
            "" if progress.done == progress.total else clock(progress.remaining_s),
        )


@contextmanager
def attacking() -> Iterator[CascadeTable | Watch]:
    """A display of an evaluation for the block: a live table on a terminal, plain lines elsewhere."""
    with live() as display:
        yield Watch(None) if display is None else CascadeTable(display)


@contextmanager
def live() -> Iterator[Live | None]:
    """A display on standard error for the block; None where that is not a terminal."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, transient=True, refresh_per_second=4) as display:
        yield display


def _figures(figures: Mapping[str, float]) -> str:
    shown = []
    for name, value in figures.items():
        if name in _HIDDEN:
            continue
        text = (
            f"{100 * value:.1f} %"
            if name.endswith(("accuracy", "share"))
            else f"{value:.3g}"
            if value < 100
            else f"{value:.0f}"
        )
        shown.append(f"{_LABELS.get(name, name)} {text}")
    return "  ".join(shown)


def _eta(remaining_s: float | None) -> str:
    return "" if remaining_s is None else f"{clock(remaining_s)} left"


DAYS_FROM_S = 3 * 86400


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, or days from three on; nothing where unknown."""
    if seconds is None:
        return ""
    if seconds >= DAYS_FROM_S:
        return f"{seconds / 86400:,.0f} days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

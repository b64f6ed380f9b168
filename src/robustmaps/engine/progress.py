"""Progress reports of long work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report: how far the work is, and its figures so far.

    Attributes:
        phase: the current phase, such as ``epoch 3/20`` or ``pgd``.
        done: units done within the phase.
        total: units in the phase.
        unit: what is counted, such as ``images``.
        figures: named numbers worth showing, such as ``loss`` and ``images_per_s``.
        remaining_s: estimated seconds until all work is done; None if unknown.
    """

    phase: str
    done: int
    total: int
    unit: str
    figures: Mapping[str, float] = field(default_factory=dict)
    remaining_s: float | None = None


Watcher = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Do nothing."""


def decoding(watcher: Watcher) -> Callable[[int, int | None], None]:
    """What counts images as a data set is decoded, for a watcher; the total may be unknown."""
    return lambda done, total: watcher(Progress("decoding images", done, total or done, "images"))

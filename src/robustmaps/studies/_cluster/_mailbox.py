"""The mailbox in which reports and files of attempts wait until they are fetched."""

from dataclasses import dataclass, field

from robustmaps.engine.progress import Progress
from robustmaps.studies._cluster._files import Changes

Attempt = tuple[int, int]
"""Index of the task, number of the attempt."""


class Lost(Exception):  # noqa: N818 - named after what happened
    """The machine or the process of an attempt was lost."""


@dataclass
class News:
    """What came since it was last taken.

    Attributes:
        began: the machine of each attempt, and whether it sees the folder.
        progress: the latest report.
        changes: changed files.
    """

    began: dict[Attempt, tuple[str, bool]] = field(default_factory=dict)
    progress: dict[Attempt, Progress] = field(default_factory=dict)
    changes: dict[Attempt, Changes] = field(default_factory=dict)


class Mailbox:
    """Takes reports and files of attempts until they are fetched; an actor on the machine of the study's process."""

    def __init__(self) -> None:
        self._stop = False
        self._news = News()

    def tell(self, index: int, attempt: int, sees: bool, node: str, progress: Progress | None) -> bool:
        """Receive a report; returns whether to stop."""
        self._news.began[index, attempt] = node, sees
        if progress is not None:
            self._news.progress[index, attempt] = progress
        return self._stop

    def keep(self, index: int, attempt: int, changes: Changes) -> None:
        """Receive files."""
        before = self._news.changes.get((index, attempt))
        self._news.changes[index, attempt] = changes if before is None else before.then(changes)

    def take(self, stop: bool) -> News:
        """Fetch what came since the last time, and tell whether to stop."""
        self._stop = stop
        news, self._news = self._news, News()
        return news

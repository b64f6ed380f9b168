"""The course of tasks on machines that may be lost: which attempt runs, and what has come from it."""

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from robustmaps.engine.errors import Interrupted
from robustmaps.engine.numbers import counted
from robustmaps.engine.progress import Progress
from robustmaps.engine.writing.temporaries import temporary
from robustmaps.studies._cluster._files import Changes, Watched
from robustmaps.studies._cluster._mailbox import Attempt, Lost, News
from robustmaps.studies._cluster._worker import Ended, Job
from robustmaps.studies._processes import FolderTask, Task, TaskOutcome, WorkerDied

_POLL_S = 0.2
_ROOM_S = 10.0


class Pool(Protocol):
    """Where attempts run; see `RayPool`."""

    def submit(self, job: Job) -> None:
        """Start an attempt where there is room."""

    def take(self, stop: bool) -> News:
        """What came since the last time; says whether to stop."""

    def room(self) -> int:
        """The number of attempts that the machines of this moment have room for."""

    def cancel(self, attempts: Collection[Attempt]) -> None:
        """Give up those that wait for room."""

    def ended(self, timeout_s: float) -> dict[Attempt, Ended | Lost]:
        """The attempts that have ended."""


@contextmanager
def probes(tasks: Sequence[Task[Any]]) -> Iterator[dict[Path, Path]]:
    """Within the block, there is a file in the parent of each task's folder whose name no other machine has."""
    with ExitStack() as stack:
        parents = {task.folder.absolute().parent for task in tasks if isinstance(task, FolderTask)}
        yield {one: stack.enter_context(temporary(one / f"probe-{secrets.token_hex(8)}")) for one in parents}


@dataclass(frozen=True)
class Limits:
    """Limits of all tasks.

    Attributes:
        at_once: the most attempts that run or wait for room.
        threads: threads of each.
        retries: how often a lost one is made again.
    """

    at_once: int
    threads: int
    retries: int


@dataclass
class _Work:
    """A task on its way.

    Attributes:
        attempt: the number of the present attempt.
        files: what is in its folder, if the machine does not see it.
        known: names of files that came from there or were sent there.
        lost: why attempts were lost.
    """

    attempt: int = 1
    files: Changes | None = None
    known: frozenset[str] = frozenset()
    lost: list[str] = field(default_factory=list)


class Course:
    """The course of all tasks: what waits, what runs, what has ended.

    Args:
        pool: where attempts run.
        limits: their limits.
        tasks: the tasks.
        seen: by folder, the file that shows who sees it.
        watcher: as for `Executor`, like the next two.
        finished: the same.
        noted: the same.

    Attributes:
        outcomes: of those that have ended.
    """

    def __init__(
        self,
        pool: Pool,
        limits: Limits,
        tasks: Sequence[Task[Any]],
        seen: dict[Path, Path],
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[Any]], None],
        noted: Callable[[int, str], None],
    ) -> None:
        self._pool, self._limits, self._tasks, self._probes = pool, limits, tasks, seen
        self._watcher, self._finished, self._noted = watcher, finished, noted
        self._waiting = deque(range(len(tasks)))
        self._work = {index: _Work() for index in self._waiting}
        self._running: dict[int, bool] = {}  # whether it has begun
        self._stop = False
        self._nodes: dict[str, bool] = {}
        self._looked = time.monotonic()
        self.outcomes: dict[int, TaskOutcome[Any]] = {}

    @property
    def open(self) -> bool:
        """Whether something runs or waits."""
        return bool(self._running) or bool(self._waiting and not self._stop)

    def step(self, stop: bool) -> None:
        """Start what there is room for, and take in what has come."""
        while self._waiting and not self._stop and len(self._running) < self._limits.at_once:
            self._submit(self._waiting.popleft())
        if not self._running:
            return
        ended = self._pool.ended(_POLL_S)
        news = self._pool.take(self._stop or stop)
        if stop and not self._stop:
            self._stop = True
            waiting = {(index, self._at(index)) for index, begun in self._running.items() if not begun}
            self._pool.cancel(waiting - news.began.keys())
        self._take(news)
        self._look_for_room()
        for (index, _), end in ended.items():
            begun = self._running.pop(index)
            self._lost(index, end, begun) if isinstance(end, Lost) else self._ended(index, end)

    def _look_for_room(self) -> None:
        """Tell once if runs wait for a machine that may never come."""
        if any(self._running.values()) or time.monotonic() - self._looked < _ROOM_S:
            return
        self._looked = time.monotonic()
        if not self._pool.room():
            self._looked = math.inf
            index = next(iter(self._running))
            self._noted(index, "waits, since no machine that is left has room for it; one may join, or Ctrl-C stops")

    def _at(self, index: int) -> int:
        return self._work[index].attempt

    def _submit(self, index: int) -> None:
        task, work = self._tasks[index], self._work[index]
        probe = None
        try:
            if isinstance(task, FolderTask):
                task.claim()
                folder = task.folder.absolute()
                probe, task = self._probes[folder.parent], cast("Task[Any]", task.below(folder.parent))
                if work.files is not None:
                    work.files = Watched(folder).changes() or Changes()
                    work.known = work.files.names
        except Exception as error:  # noqa: BLE001 - the failure of this task alone
            self._end(index, TaskOutcome(error=error))
            return
        self._running[index] = False
        here, threads = Path.cwd(), self._limits.threads
        self._pool.submit(Job(index, work.attempt, task, probe, work.files, here, threads))

    def _take(self, news: News) -> None:
        for (index, attempt), (node, sees) in news.began.items():
            if index in self._running and attempt == self._at(index):
                self._running[index] = True
                self._note_node(index, node, sees)
        for (index, attempt), changes in news.changes.items():
            task, work = self._tasks[index], self._work[index]
            if index in self._running and attempt == work.attempt and isinstance(task, FolderTask):
                changes.apply(task.folder, work.known)
                work.known = changes.names
        for (index, attempt), progress in news.progress.items():
            if index in self._running and attempt == self._at(index):
                self._watcher(index, progress)

    def _note_node(self, index: int, node: str, sees: bool) -> None:
        task = self._tasks[index]
        if self._nodes.get(node) == sees or not isinstance(task, FolderTask):
            return
        self._nodes[node] = sees
        out = task.folder.parent
        how = f"sees {out} and works there" if sees else f"does not see {out}; its files come back through Ray"
        self._noted(index, f"on {node}, which {how}")

    def _lost(self, index: int, loss: Lost, begun: bool) -> None:
        work = self._work[index]
        work.lost.append(str(loss))
        if self._stop:
            self._end(index, TaskOutcome(error=Interrupted(f"lost during the stop: {loss}")))
        elif len(work.lost) > self._limits.retries:
            times = counted(len(work.lost), "time")
            self._end(index, TaskOutcome(error=WorkerDied(f"its process or machine was lost {times}, at last: {loss}")))
        else:
            work.attempt += 1
            again = "continues from its last checkpoint" if begun else "had not begun, and begins elsewhere"
            self._noted(index, f"lost ({loss}); {again}")
            self._waiting.appendleft(index)

    def _ended(self, index: int, end: Ended) -> None:
        if end.outcome is not None:
            self._end(index, end.outcome)
        elif self._stop:
            self._end(index, TaskOutcome(error=Interrupted("stopped before it started")))
        else:  # it needs the files first, which is no loss
            self._work[index].attempt += 1
            self._work[index].files = Changes()
            self._waiting.appendleft(index)

    def _end(self, index: int, outcome: TaskOutcome[Any]) -> None:
        self.outcomes[index] = outcome
        self._finished(index, outcome)

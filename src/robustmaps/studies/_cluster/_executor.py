"""Runs on the machines of a Ray cluster, which may be lost on the way."""

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.numbers import check_at_least, check_whole, counted
from robustmaps.engine.progress import Progress
from robustmaps.engine.writing.temporaries import temporary
from robustmaps.studies._cluster._connection import address_or_local, check_address, connected, load_ray, runs_at_once
from robustmaps.studies._cluster._files import Changes, Watched
from robustmaps.studies._cluster._pool import Attempt, Lost, News, RayPool
from robustmaps.studies._cluster._worker import Ended, Job
from robustmaps.studies._processes import FolderTask, Task, TaskOutcome, WorkerDied

T = TypeVar("T")

_POLL_S = 0.2
_ROOM_S = 10.0


@dataclass(frozen=True)
class RayExecutor:
    """Runs tasks on a Ray cluster, and again from where they stopped when a process or a machine is lost.

    A machine that sees the folder of the tasks works there. From another one, files come back through Ray.

    Attributes:
        address: ``HOST:PORT`` of the head node, ``ray://HOST:PORT``, ``auto`` or ``local``; by default that of
            ``RAY_ADDRESS``, or a cluster of this machine alone.
        cpus_per_run: cores of each task.
        gpus_per_run: GPUs of each task, which may be a fraction; by default one if the cluster has any.
        jobs: the most tasks at once; by default as many as there is room for.
        threads: threads of each task; by default its cores.
        retries: how often a task is tried again after a loss.
    """

    address: str | None = None
    cpus_per_run: int = 1
    gpus_per_run: float | None = None
    jobs: int | None = None
    threads: int | None = None
    retries: int = 3

    @property
    def threads_each(self) -> int:
        """Threads of each task."""
        return self.threads or self.cpus_per_run

    @property
    def is_here(self) -> bool:
        """Whether the tasks run on this machine alone."""
        return address_or_local(self.address) == "local"

    def runs_at_once(self) -> int:
        """Connect for a moment, and count the tasks that the cluster has room for.

        Raises:
            InputError: Ray is missing, no cluster is there, or it has no room for one.
        """
        self._check()
        with connected(address_or_local(self.address)) as ray:
            room, _ = runs_at_once(ray, self.cpus_per_run, self.gpus_per_run)
        return min(room, self.jobs or room)

    def run(
        self,
        tasks: Sequence[Task[T]],
        *,
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None] = lambda *_: None,
    ) -> list[TaskOutcome[T]]:
        """See `Executor`.

        Raises:
            InputError: as for `runs_at_once`.
        """
        self._check()
        if not tasks:
            return []
        code = any(task.runs_code for task in tasks if isinstance(task, FolderTask))
        with connected(address_or_local(self.address), code=code) as ray:
            _, gpus = runs_at_once(ray, self.cpus_per_run, self.gpus_per_run)
            pool = RayPool(ray, self.cpus_per_run, gpus)
            return self.run_in(pool, tasks, watcher, finished, should_stop, noted)

    def run_in(
        self,
        pool: "Pool",
        tasks: Sequence[Task[T]],
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None],
    ) -> list[TaskOutcome[T]]:
        """Run tasks in a pool; see `Executor`."""
        with _probes(tasks) as probes:
            course = _Course(self, pool, tasks, probes, watcher, finished, noted)
            while course.open:
                course.step(should_stop())
        none: TaskOutcome[T] = TaskOutcome(error=Interrupted("stopped before it started"))
        return [course.outcomes.get(index, none) for index in range(len(tasks))]

    def _check(self) -> None:
        check_whole("cpus_per_run", self.cpus_per_run, 1)
        check_whole("retries", self.retries, 0)
        if self.gpus_per_run is not None:
            check_at_least("gpus_per_run", self.gpus_per_run, 0)
            if self.gpus_per_run > 1 and self.gpus_per_run != int(self.gpus_per_run):
                raise InputError(f"gpus_per_run={self.gpus_per_run:g}: expected a whole number, or less than 1")
        load_ray()
        check_address(address_or_local(self.address))


class Pool(Protocol):
    """Where attempts run; see `RayPool`."""

    def submit(self, job: Job) -> None:
        """Start an attempt where there is room."""

    def take(self, stop: bool) -> News:
        """What came since the last time; says whether to stop."""

    def room(self) -> int:
        """The number of attempts that the machines of this moment have room for."""

    def cancel(self, attempts: dict[Attempt, Any]) -> None:
        """Give up those that wait for room."""

    def ended(self, timeout_s: float) -> dict[Attempt, Ended | Lost]:
        """The attempts that have ended."""


@contextmanager
def _probes(tasks: Sequence[Task[Any]]) -> Iterator[dict[Path, Path]]:
    """Within the block, there is a file in the parent of each task's folder whose name no other machine has."""
    with ExitStack() as stack:
        parents = {task.folder.absolute().parent for task in tasks if isinstance(task, FolderTask)}
        yield {one: stack.enter_context(temporary(one / f"probe-{secrets.token_hex(8)}")) for one in parents}


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


class _Course:
    """The course of all tasks."""

    def __init__(
        self,
        executor: RayExecutor,
        pool: Pool,
        tasks: Sequence[Task[Any]],
        probes: dict[Path, Path],
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[Any]], None],
        noted: Callable[[int, str], None],
    ) -> None:
        self._executor, self._pool, self._tasks, self._probes = executor, pool, tasks, probes
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
        while self._waiting and not self._stop and len(self._running) < (self._executor.jobs or len(self._tasks)):
            self._submit(self._waiting.popleft())
        if not self._running:
            return
        ended = self._pool.ended(_POLL_S)
        news = self._pool.take(self._stop or stop)
        if stop and not self._stop:
            self._stop = True
            unstarted = [i for i, begun in self._running.items() if not begun and (i, self._at(i)) not in news.began]
            self._pool.cancel({(index, self._at(index)): None for index in unstarted})
        self._take(news)
        self._look_for_room()
        for (index, _), end in ended.items():
            del self._running[index]
            self._lost(index, end) if isinstance(end, Lost) else self._ended(index, end)

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
        here, threads = Path.cwd(), self._executor.threads_each
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

    def _lost(self, index: int, loss: Lost) -> None:
        work = self._work[index]
        work.lost.append(str(loss))
        if self._stop:
            self._end(index, TaskOutcome(error=Interrupted(f"lost during the stop: {loss}")))
        elif len(work.lost) > self._executor.retries:
            times = counted(len(work.lost), "time")
            self._end(index, TaskOutcome(error=WorkerDied(f"its process or machine was lost {times}, at last: {loss}")))
        else:
            work.attempt += 1
            self._noted(index, f"lost ({loss}); continues from its last checkpoint")
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

"""Parallel tasks, each with its share of the cores; their executor can be replaced.

Small networks make far better use of one core each than of several shared cores.
"""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from robustmaps.engine.errors import Interrupted
from robustmaps.engine.progress import Progress

T = TypeVar("T")

_POLL_S = 0.1
_FOLLOW_S = 0.2
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Worker:
    """The interface of a task to the process that started it.

    Attributes:
        watch: reports the task's progress.
        should_stop: whether the task should save its work and raise `Interrupted`.
    """

    watch: Callable[[Progress], None]
    should_stop: Callable[[], bool]


Task = Callable[[Worker], T]
"""A picklable task: a function of a module, or a dataclass with ``__call__``."""


@runtime_checkable
class FolderTask(Protocol):
    """A task with one folder, in which it continues where it stopped, on whatever machine."""

    @property
    def folder(self) -> Path:
        """The folder."""

    @property
    def runs_code(self) -> bool:
        """Whether it needs modules of the user's."""

    def claim(self) -> None:
        """Refuse a folder with other people's files."""

    def below(self, out: Path) -> "FolderTask":
        """The same task with a folder of the same name below ``out``."""

    def __call__(self, worker: Worker) -> Any:
        """Do it."""


class WorkerDied(RuntimeError):  # noqa: N818 - named after what happened
    """The process of a task ended without a result: it was killed, ran out of memory, or crashed."""


@dataclass(frozen=True)
class TaskOutcome(Generic[T]):
    """The outcome of a task.

    Attributes:
        value: its return value; None if it failed.
        error: its exception; None if it succeeded.
        warnings: what it warned of, each text once; none of a task that failed.
    """

    value: T | None = None
    error: BaseException | None = None
    warnings: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs tasks in processes on this machine, or with the same call on several machines."""

    def run(
        self,
        tasks: Sequence[Task[T]],
        *,
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None] = ...,
    ) -> list[TaskOutcome[T]]:
        """Run all tasks, even if some fail, and return their outcomes in order.

        Args:
            tasks: the tasks, started in this order.
            watcher: called with a task's index and its progress.
            finished: called with a task's index and its outcome as soon as it ends.
            should_stop: if True, stops every task and starts no more; the outcome of those is `Interrupted`.
            noted: called with a task's index and what happened to it, in words, such as the loss of its machine.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """Runs tasks in processes on this machine.

    Attributes:
        jobs: number of parallel processes.
        threads: threads of each process; by default the cores are shared evenly, within ``OMP_NUM_THREADS``.
    """

    jobs: int
    threads: int | None = None

    @property
    def threads_each(self) -> int:
        """Threads of each process."""
        return self.threads or max(1, min(available_cores() // self.jobs, _most_threads()))

    def run(
        self,
        tasks: Sequence[Task[T]],
        *,
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None] = lambda *_: None,  # noqa: ARG002 - nothing happens to these
    ) -> list[TaskOutcome[T]]:
        """See `Executor`."""
        with self.kept() as processes:
            return processes.run(tasks, watcher=watcher, finished=finished, should_stop=should_stop)

    @contextmanager
    def kept(self) -> Iterator["Executor"]:
        """Within the block, an executor whose processes stay for the tasks of the next call."""
        context = multiprocessing.get_context("spawn")
        # Without a lock, which a killed process might never release.
        stop = context.RawValue(ctypes.c_bool, False)
        with ExitStack() as stack:
            try:
                yield _Processes(context, stop, self.jobs, self.threads_each, stack)
            finally:
                stop.value = True  # before the wait for processes, even after an exception


@dataclass
class _Processes:
    """Processes that are started when there are tasks for them."""

    context: SpawnContext
    stop: Any
    jobs: int
    threads: int
    stack: ExitStack
    slots: "list[_Slot]" = field(default_factory=list)
    tasks: int = 0  # of the calls before, since a report may arrive after the end of its call

    def run(
        self,
        tasks: Sequence[Task[T]],
        *,
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None] = lambda *_: None,  # noqa: ARG002 - nothing happens to these
    ) -> list[TaskOutcome[T]]:
        """See `Executor`."""
        outcomes: list[TaskOutcome[T] | None] = [None] * len(tasks)
        waiting = list(enumerate(tasks))
        while len(self.slots) < min(self.jobs, len(tasks)):
            self.slots.append(_Slot(self.context, self.stop, self.threads, self.stack))
        working: dict[Future[Any], tuple[int, _Slot]] = {}
        first, self.tasks = self.tasks, self.tasks + len(tasks)

        def hear(number: int, progress: Progress) -> None:
            if number >= first:
                watcher(number - first, progress)

        while working or (waiting and not self.stop.value):
            for slot in self.slots:
                if waiting and not self.stop.value and slot not in [s for _, s in working.values()]:
                    index, task = waiting.pop(0)
                    working[slot.submit(first + index, task)] = (index, slot)
            done, _ = wait(working, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self.stop.value = self.stop.value or should_stop()
            for slot in self.slots:
                slot.pass_on(hear)
            for future in done:
                index, slot = working.pop(future)
                outcome: TaskOutcome[T] = slot.outcome(future)
                outcomes[index] = outcome
                finished(index, outcome)
        return [outcome or TaskOutcome(error=Interrupted("stopped before it started")) for outcome in outcomes]


def _most_threads() -> int:
    """``OMP_NUM_THREADS``, with which somebody limits the threads of every process; all cores where it is not set."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else available_cores()


def available_cores() -> int:
    """The number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Slot:
    """One process that runs tasks one after another, and is replaced when it dies.

    A pool of several processes would not show which task killed it, and would lose all other tasks too.
    """

    def __init__(self, context: SpawnContext, stop: Any, threads: int, stack: ExitStack) -> None:
        self._context, self._stop, self._threads, self._stack = context, stop, threads, stack
        self._open()

    def _open(self) -> None:
        # One queue per process: a killed process might never release its lock.
        self._reports: Queue[tuple[int, Progress]] = self._context.Queue()
        self._pool = ProcessPoolExecutor(1, self._context, _begin, (self._stop, self._reports, self._threads))
        self._stack.enter_context(self._pool)

    def submit(self, index: int, task: Task[Any]) -> Future[Any]:
        try:
            return self._pool.submit(_run, index, task)
        except BrokenProcessPool:  # it was killed while it had nothing to do
            self._open()
            return self._pool.submit(_run, index, task)

    def pass_on(self, watcher: Callable[[int, Progress], None]) -> None:
        """Pass the reports of the process on to the watcher."""
        while True:
            try:
                watcher(*self._reports.get_nowait())
            except queue.Empty:
                return

    def outcome(self, future: Future[tuple[T, tuple[str, ...]]]) -> TaskOutcome[T]:
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            self._open()
            error = WorkerDied("the process ended without a result: it was killed, ran out of memory, or crashed")
        if error is not None:
            return TaskOutcome(error=error)
        value, warned = future.result()
        return TaskOutcome(value, warnings=warned)


class _Heard:
    """Takes the place of the function that prints warnings, since the output belongs to the main process."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def __call__(self, message: Warning | str, *_: object, **__: object) -> None:
        self.texts[str(message)] = None


@contextmanager
def hearing() -> Iterator[_Heard]:
    """Within the block, what is warned of is collected, in each task anew and not once a process."""
    with warnings.catch_warnings():
        warnings.showwarning = heard = _Heard()
        warnings.simplefilter("always", UserWarning)
        yield heard


_connection: "tuple[Any, Queue[tuple[int, Progress]]] | None" = None
"""Set once in each worker process, since the pool offers no other way to pass it."""


def _begin(stop: Any, reports: "Queue[tuple[int, Progress]]", threads: int) -> None:
    global _connection
    _connection = (stop, reports)
    # Ctrl-C reaches the whole process group, but only the main process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    _die_with_parent()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _die_with_parent() -> None:
    """Let Linux kill this process at once when its parent ends, so that it can't hold a lock while a sweep goes on."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every C library has it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _follow(parent: int) -> None:
    """Exit when the main process has ended for any reason."""
    while os.getppid() == parent:
        time.sleep(_FOLLOW_S)
    os._exit(1)


def _run(index: int, task: Task[Any]) -> tuple[Any, tuple[str, ...]]:
    assert _connection is not None  # noqa: S101 - the pool calls _begin first
    stop, reports = _connection
    with hearing() as heard:
        value = task(Worker(lambda progress: reports.put((index, progress)), lambda: bool(stop.value)))
    return value, tuple(heard.texts)

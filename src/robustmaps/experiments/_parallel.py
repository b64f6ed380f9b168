"""Several tasks at once on one machine, each in a process with its share of the cores.

Small networks use one core each far better than they share several.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from robustmaps.engine.progress import Progress

T = TypeVar("T")

_POLL_S = 0.1


@dataclass(frozen=True)
class Worker:
    """What a task may use of the process that started it.

    Attributes:
        watch: reports the task's progress.
        should_stop: whether the task is to save its work and raise.
    """

    watch: Callable[[Progress], None]
    should_stop: Callable[[], bool]


Task = Callable[[Worker], T]
"""A picklable task: a function of a module, or a dataclass with ``__call__``."""


def run_all(
    tasks: Sequence[Task[T]],
    *,
    jobs: int,
    threads: int | None = None,
    watcher: Callable[[int, Progress], None],
    should_stop: Callable[[], bool],
) -> list[T]:
    """Run tasks in ``jobs`` processes and return their results in order.

    Args:
        tasks: what to run.
        jobs: processes.
        threads: of each process; the cores are shared out evenly if left out.
        watcher: called with a task's index and its progress.
        should_stop: True tells every task to stop; the first exception is then raised.

    Raises:
        Exception: the first one that a task raised, after the others were told to stop.
    """
    context = multiprocessing.get_context("spawn")
    stop, reports = context.Event(), context.Queue()
    threads = threads or max(1, available_cores() // jobs)
    with ProcessPoolExecutor(jobs, context, _begin, (stop, reports, threads)) as pool:
        futures = [pool.submit(_run, index, task) for index, task in enumerate(tasks)]
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
            if should_stop() or any(future.exception() for future in done):
                stop.set()
            while True:
                try:
                    watcher(*reports.get_nowait())
                except queue.Empty:
                    break
    return [future.result() for future in futures]


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_connection: tuple[Event, "Queue[tuple[int, Progress]]"] | None = None
"""Set once in a worker process, where the pool gives no other way to hand it over."""


def _begin(stop: Event, reports: "Queue[tuple[int, Progress]]", threads: int) -> None:
    global _connection
    _connection = (stop, reports)
    # Ctrl-C reaches the whole group; only the main process decides what follows from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _follow(parent: int) -> None:
    """End with the main process, however it ended."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(index: int, task: Task[Any]) -> Any:
    assert _connection is not None  # noqa: S101 - the pool calls _begin first
    stop, reports = _connection
    return task(Worker(lambda progress: reports.put((index, progress)), stop.is_set))

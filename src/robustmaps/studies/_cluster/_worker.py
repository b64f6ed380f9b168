"""What a machine of the cluster does with a task."""

import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from robustmaps.engine.cluster.portable import portable
from robustmaps.engine.errors import Busy, Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.studies._cluster._files import Changes, Watched
from robustmaps.studies._processes import FolderTask, Task, TaskOutcome, Worker, hearing

_TELL_S = 0.3
_SEND_S = 5.0
# A process that lost its machine's connection ends a moment later, and frees the run's lock only then.
_BUSY_S = 60.0


@dataclass(frozen=True)
class Job:
    """One attempt at a task.

    Attributes:
        index, attempt: its numbers.
        task: the task, with absolute paths.
        probe: an empty file that is there where the folder can be seen; None of a task without a folder.
        files: what is in the folder so far, for a machine that does not see it; None if not asked for yet.
        here: the current folder of the process that started it, for relative paths.
        threads: number of threads.
    """

    index: int
    attempt: int
    task: Task[Any]
    probe: Path | None
    files: Changes | None
    here: Path
    threads: int


@dataclass(frozen=True)
class Ended:
    """The end of an attempt.

    Attributes:
        node: the name of the machine.
        sees: whether it sees the folder.
        outcome: the outcome; None if it needs the files of the folder first.
    """

    node: str
    sees: bool
    outcome: TaskOutcome[Any] | None


class Line(Protocol):
    """The line to the process that started the tasks."""

    def tell(self, index: int, attempt: int, sees: bool, node: str, progress: Progress | None) -> bool:
        """Report an attempt; returns whether it should stop."""

    def keep(self, index: int, attempt: int, changes: Changes) -> None:
        """Hand over what changed in its folder; returns when that is safe."""


def work(job: Job, line: Line) -> Ended:
    """Make an attempt; what goes wrong in the task is in its outcome."""
    import torch

    node = platform.node()
    if job.here.is_dir():
        os.chdir(job.here)
    torch.set_num_threads(job.threads)
    if job.probe is None or job.probe.exists():
        return Ended(node, True, _outcome(job, job.task, line, node, lambda: None, sees=True))
    if job.files is None or not isinstance(job.task, FolderTask):
        return Ended(node, False, None)
    with tempfile.TemporaryDirectory(prefix="robustmaps-") as scratch:
        task = job.task.below(Path(scratch))
        job.files.apply(task.folder, ())
        watched = Watched(task.folder)
        watched.changes()  # those are known
        sent = time.monotonic()

        def send(*, now: bool = False) -> None:
            nonlocal sent
            if (now or time.monotonic() - sent > _SEND_S) and (changes := watched.changes()) is not None:
                line.keep(job.index, job.attempt, changes)
                sent = time.monotonic()

        outcome = _outcome(job, task, line, node, send, sees=False)
        send(now=True)
        return Ended(node, False, _renamed(outcome, str(task.folder), str(job.task.folder)))


def _outcome(
    job: Job, task: Task[Any], line: Line, node: str, send: Callable[[], None], *, sees: bool
) -> TaskOutcome[Any]:
    began = time.monotonic()
    with _told(job, line, node, sees) as (watch, should_stop), hearing() as heard:

        def watched(progress: Progress) -> None:
            watch(progress)
            send()  # between two batches, when no file is half-way

        while True:
            try:
                if should_stop():
                    raise Interrupted("stopped before it started")
                return TaskOutcome(task(Worker(watched, should_stop)), warnings=tuple(heard.texts))
            except Busy as error:
                if job.attempt == 1 or time.monotonic() - began > _BUSY_S:
                    return TaskOutcome(error=error)
                time.sleep(1)
            except Exception as error:  # noqa: BLE001 - that is the outcome
                return TaskOutcome(error=portable(error, node))


def _renamed(outcome: TaskOutcome[Any], scratch: str, folder: str) -> TaskOutcome[Any]:
    """The outcome with the folder's own name in place of that of its copy."""
    error = outcome.error
    if error is not None:
        error.args = tuple(each.replace(scratch, folder) if isinstance(each, str) else each for each in error.args)
    return TaskOutcome(outcome.value, error, tuple(text.replace(scratch, folder) for text in outcome.warnings))


@contextmanager
def _told(
    job: Job, line: Line, node: str, sees: bool
) -> Iterator[tuple[Callable[[Progress], None], Callable[[], bool]]]:
    """Within the block, the latest progress is reported by a thread, so that no step waits for it."""
    latest: Progress | None = None
    stopping, over = threading.Event(), threading.Event()

    def tell() -> None:
        try:
            if line.tell(job.index, job.attempt, sees, node, latest):
                stopping.set()
        except Exception:  # noqa: BLE001 - nobody is there any more: save and end
            stopping.set()

    def keep_telling() -> None:
        while not over.wait(_TELL_S):
            tell()

    def watch(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    tell()
    thread = threading.Thread(target=keep_telling, daemon=True)
    thread.start()
    try:
        yield watch, stopping.is_set
    finally:
        over.set()
        thread.join()

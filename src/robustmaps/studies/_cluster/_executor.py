"""Runs on the machines of a Ray cluster, which may be lost on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from robustmaps.engine.cluster.connection import LOCAL, address_or_local, check_shares, connected, runs_at_once
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.studies._cluster._course import Course, Limits, Pool, probes
from robustmaps.studies._cluster._pool import RayPool
from robustmaps.studies._processes import FolderTask, Task, TaskOutcome

T = TypeVar("T")


@dataclass(frozen=True)
class RayExecutor:
    """Runs tasks on a Ray cluster, and again from where they stopped when a process or a machine is lost.

    A machine that sees the folder of the tasks works there. From another one, files come back through Ray. If Ray is
    connected already, that connection is used, with the code that it sends.

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
        return address_or_local(self.address) == LOCAL

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
        pool: Pool,
        tasks: Sequence[Task[T]],
        watcher: Callable[[int, Progress], None],
        finished: Callable[[int, TaskOutcome[T]], None],
        should_stop: Callable[[], bool],
        noted: Callable[[int, str], None],
    ) -> list[TaskOutcome[T]]:
        """Run tasks in a pool; see `Executor`."""
        limits = Limits(self.jobs or len(tasks), self.threads_each, self.retries)
        with probes(tasks) as seen:
            course = Course(pool, limits, tasks, seen, watcher, finished, noted)
            while course.open:
                course.step(should_stop())
        none: TaskOutcome[T] = TaskOutcome(error=Interrupted("stopped before it started"))
        return [course.outcomes.get(index, none) for index in range(len(tasks))]

    def _check(self) -> None:
        check_shares(self.address, self.cpus_per_run, self.gpus_per_run, self.retries)

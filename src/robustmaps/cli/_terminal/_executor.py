"""Where runs are made, or the batches of an evaluation attacked: options of the verbs that share their work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from robustmaps.engine.errors import InputError

if TYPE_CHECKING:
    from robustmaps.evaluation import RayWorkers, WorkerPool
    from robustmaps.studies import RayExecutor


@dataclass(frozen=True)
class Execution:
    """Executor of the work.

    Attributes:
        executor: this machine, or a Ray cluster
        address: Ray cluster, e.g. HOST:6379, ray://HOST:10001 or auto (default: RAY_ADDRESS, or this machine alone)
        cpus_per_run: cores of each run, or worker of an evaluation, on a Ray cluster (default: 1)
        gpus_per_run: GPUs of each, e.g. 0.5 (default: 1 if the cluster has any)
    """

    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None

    def on_cluster(self, jobs: int | None, threads: int | None = None) -> "RayExecutor | None":
        """The executor; None for processes of this machine.

        Raises:
            InputError: there are options of a cluster without one.
        """
        given = self._given()
        if given is None:
            return None
        from robustmaps.studies import RayExecutor

        return RayExecutor(jobs=jobs, threads=threads, **given)

    def workers(self, device: str) -> "RayWorkers | None":
        """The workers of an evaluation, checked but not started; None for this process.

        Raises:
            InputError: there are options of a cluster without one, or there is no cluster.
        """
        given = self._given()
        if given is None:
            return None
        from robustmaps.evaluation import RayWorkers

        workers = RayWorkers(device=device, **given)
        workers.check()
        return workers

    def _given(self) -> dict[str, Any] | None:
        """The options of a cluster that are given; None without one."""
        given = {name: value for name, value in vars(self).items() if name != "executor" and value is not None}
        if self.executor == "ray":
            return given
        for name in given:
            option = name.replace("_", "-")
            raise InputError(f"{option}: only of use on a Ray cluster; add --executor ray, or leave --{option} out")
        return None


@contextmanager
def started(workers: "RayWorkers | None", noted: Callable[[str], None]) -> "Iterator[WorkerPool | None]":
    """Within the block, there are the workers, if any."""
    if workers is None:
        yield None
        return
    with workers.started(noted) as pool:
        yield pool


def shares(executor: "RayExecutor | None", jobs: int | None, threads: int | None = None) -> dict[str, Any]:
    """How a plan divides the work: as it was typed, or by what the cluster has room for.

    Raises:
        InputError: the cluster can't be reached, or has no room for a run.
    """
    if executor is None:
        return {"jobs": jobs, "threads": threads}
    return {"jobs": executor.runs_at_once(), "threads": executor.threads_each, "timed": executor.is_here}

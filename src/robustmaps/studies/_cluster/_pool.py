"""Attempts at tasks as plain tasks of Ray, with a mailbox beside the process that started them."""

from collections.abc import Collection
from typing import Any

from robustmaps.engine.cluster.connection import runs_at_once
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.studies._cluster._files import Changes
from robustmaps.studies._cluster._mailbox import Attempt, Lost, Mailbox, News
from robustmaps.studies._cluster._worker import Ended, Job, work
from robustmaps.studies._processes import TaskOutcome


class ClusterLost(RuntimeError):  # noqa: N818 - named after what happened
    """The process that started the tasks can't reach its own part of the cluster any more."""


class RemoteLine:
    """The mailbox as a `Line`.

    Args:
        mailbox: the actor.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def tell(self, index: int, attempt: int, sees: bool, node: str, progress: Progress | None) -> bool:
        """See `Mailbox`."""
        import ray

        return bool(ray.get(self._mailbox.tell.remote(index, attempt, sees, node, progress)))

    def keep(self, index: int, attempt: int, changes: Changes) -> None:
        """See `Mailbox`."""
        import ray

        ray.get(self._mailbox.keep.remote(index, attempt, changes))


def _attempt(job: Job, mailbox: Any) -> Ended:
    return work(job, RemoteLine(mailbox))


class RayPool:
    """Attempts that run on the cluster.

    Args:
        ray: the module, connected.
        cpus: cores of an attempt.
        gpus: GPUs of an attempt.
    """

    def __init__(self, ray: Any, cpus: int, gpus: float) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._share = ray, (cpus, gpus)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()
        # Not by Ray's own retries: a lost attempt is made again by `RayExecutor`, with the files as they are then.
        self._attempt = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_attempt)
        self._running: dict[Any, Attempt] = {}

    def submit(self, job: Job) -> None:
        """Hand an attempt to the cluster, which starts it where there is room."""
        self._running[self._attempt.remote(job, self._mailbox)] = job.index, job.attempt

    def take(self, stop: bool) -> News:
        """What came since the last time."""
        try:
            news: News = self._ray.get(self._mailbox.take.remote(stop))
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ClusterLost(f"the cluster was lost ({reason}); the same command continues") from error
        return news

    def room(self) -> int:
        """The number of attempts that the machines of this moment have room for."""
        try:
            return runs_at_once(self._ray, *self._share)[0]
        except InputError:
            return 0

    def cancel(self, attempts: Collection[Attempt]) -> None:
        """Give up those that wait for room."""
        for handle, attempt in self._running.items():
            if attempt in attempts:
                self._ray.cancel(handle, recursive=False)

    def ended(self, timeout_s: float) -> dict[Attempt, Ended | Lost]:
        """The attempts that have ended, after a wait for the first."""
        ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=timeout_s)
        if ready:
            ready, _ = self._ray.wait([*self._running], num_returns=len(self._running), timeout=0)
        return {self._running.pop(handle): self._end(handle) for handle in ready}

    def _end(self, handle: Any) -> Ended | Lost:
        errors = self._ray.exceptions
        try:
            ended: Ended = self._ray.get(handle)
        except errors.TaskCancelledError:
            return Ended("", True, TaskOutcome(error=Interrupted("stopped before it started")))
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # on any machine again
            cause = getattr(error, "cause", None) or error
            text = str(cause).strip().splitlines()[-1] if str(cause).strip() else ""
            where = getattr(error, "ip", "") or "a machine of the cluster"
            return Ended("", True, TaskOutcome(error=RuntimeError(f"{type(cause).__name__}: {text} (on {where})")))
        except errors.RayError as error:
            return Lost(str(error).strip().partition("\n")[0].partition(". ")[0])
        return ended

"""Workers as actors of a Ray cluster."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from robustmaps.engine import ranks
from robustmaps.engine.cluster.connection import address_or_local, check_shares, connected, runs_at_once
from robustmaps.engine.cluster.portable import portable
from robustmaps.engine.errors import InputError
from robustmaps.evaluation._sharing._batches import Attacked, Batch
from robustmaps.evaluation._sharing._pool import Lost, WorkerPool
from robustmaps.evaluation._sharing._worker import Answer, Opened, Setup, Worker, packed


@dataclass(frozen=True)
class RayWorkers:
    """Workers on a Ray cluster, which may be lost: the batches of an evaluation are shared out to them.

    >>> with RayWorkers("HOST:6379").started() as workers:  # doctest: +SKIP
    ...     evaluate(model, x, y, AutoAttack(eps=8 / 255), state="state", workers=workers)

    Each is a process that holds the network and its view. If Ray is connected already, that connection is used, with
    the code that it sends.

    Attributes:
        address: ``HOST:PORT`` of the head node, ``ray://HOST:PORT``, ``auto`` or ``local``; by default that of
            ``RAY_ADDRESS``, or a cluster of this machine alone.
        cpus_per_run: cores of each worker, and its threads.
        gpus_per_run: GPUs of each worker, which may be a fraction; by default one if the cluster has any, and none for
            the device ``cpu``.
        device: the device of each worker, as for `robustmaps.engine.device.resolve_device`.
        retries: how often a batch is attacked again after the loss of its worker.
    """

    address: str | None = None
    cpus_per_run: int = 1
    gpus_per_run: float | None = None
    device: str = "auto"
    retries: int = 3

    def check(self) -> None:
        """Refuse what can't work, within seconds and without a connection.

        Raises:
            InputError: Ray is missing, no cluster is at the address, a number is impossible, or ranks share the work.
        """
        if ranks.size() > 1:
            raise InputError(f"executor=ray: {ranks.size()} ranks share the work already; start it without torchrun")
        check_shares(self.address, self.cpus_per_run, self.gpus_per_run, self.retries)

    @contextmanager
    def started(self, noted: Callable[[str], None] = lambda _: None) -> Iterator[WorkerPool]:
        """Within the block, Ray is connected, and there are workers as soon as an evaluation has work for them.

        Args:
            noted: told in words when a worker is lost, and the like.

        Raises:
            InputError: as `check`, or the cluster has no room for a worker.
        """
        self.check()
        with connected(address_or_local(self.address), code=True) as ray:
            given = 0.0 if self.gpus_per_run is None and self.device == "cpu" else self.gpus_per_run
            _, gpus = runs_at_once(ray, self.cpus_per_run, given)
            machines = RayMachines(ray, self.cpus_per_run, gpus, self.device)
            try:
                yield WorkerPool(machines, self.retries, noted)
            finally:
                machines.end()


class ClusterLost(RuntimeError):  # noqa: N818 - named after what happened
    """The process that shares out the batches can't reach its own part of the cluster any more."""


class EvaluationWorker:
    """A `Worker` in a process of its own, which the cluster lists by this name."""

    def __init__(self, device: str, threads: int) -> None:
        self._worker = Worker(device, threads)

    def open(self, sent: tuple[bytes, Setup]) -> Answer[Opened]:
        """See `Worker`."""
        return self._worker.open(*sent)

    def attack(self, batch: Batch) -> Answer[Attacked]:
        """See `Worker`."""
        return self._worker.attack(batch)

    def share(self) -> float:
        """See `Worker`."""
        return self._worker.share()


class RayMachines:
    """The machines of a cluster.

    Args:
        ray: the module, connected.
        cpus: cores of a worker.
        gpus: GPUs of a worker.
        device: the device of a worker.
    """

    def __init__(self, ray: Any, cpus: int, gpus: float, device: str) -> None:
        self._ray, self._share_of, self._given = ray, (cpus, gpus), (device, cpus)
        # Not by Ray's own retries: a batch may be of no use by then. Two at once, for `share` beside a batch.
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=2)(EvaluationWorker)
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._asked: dict[int, Any] = {}
        self._shares: dict[int, float] = {}

    def send(self, model: nn.Module, setup: Setup) -> Any:
        """Put them into the object store, from which each machine fetches them once."""
        # With the code of classes that are in no module, such as those of a notebook.
        return self._ray.put((packed(model, self._ray.cloudpickle), setup))

    def room(self) -> int:
        """The number of workers that the machines of this moment have room for."""
        try:
            return runs_at_once(self._ray, *self._share_of)[0]
        except InputError:
            return 0
        except self._ray.exceptions.RayError as error:
            raise _cluster_lost(error) from error

    def start(self) -> int:
        """Ask for an actor."""
        number = next(self._numbers)
        self._actors[number] = self._actor.remote(*self._given)
        return number

    def stop(self, worker: int) -> None:
        """End an actor."""
        self._asked.pop(worker, None)
        self._shares.pop(worker, None)
        with suppress(Exception):  # it may be lost, or the cluster
            self._ray.kill(self._actors.pop(worker))

    def end(self) -> None:
        """End all actors."""
        for worker in [*self._actors]:
            self.stop(worker)

    def open(self, worker: int, sent: Any) -> None:
        """See `Machines`."""
        self._calls[self._actors[worker].open.remote(sent)] = worker

    def attack(self, worker: int, batch: Batch) -> None:
        """See `Machines`."""
        self._shares.pop(worker, None)
        self._calls[self._actors[worker].attack.remote(batch)] = worker

    def answers(self, timeout_s: float) -> dict[int, Answer[Any] | Lost]:
        """See `Machines`."""
        if not self._calls:
            time.sleep(timeout_s)
            return {}
        try:
            ready, _ = self._ray.wait([*self._calls], num_returns=1, timeout=timeout_s)
            if ready:
                ready, _ = self._ray.wait([*self._calls], num_returns=len(self._calls), timeout=0)
        except self._ray.exceptions.RayError as error:
            raise _cluster_lost(error) from error
        return {self._calls.pop(call): self._answer(call) for call in ready}

    def shares(self) -> dict[int, float]:
        """See `Machines`; workers are asked again and again, and nobody waits for them."""
        busy = {*self._calls.values()}
        for worker in busy:
            asked = self._asked.get(worker)
            if asked is not None:
                if not self._ray.wait([asked], timeout=0)[0]:
                    continue
                with suppress(self._ray.exceptions.RayError):  # its batch tells that it is lost
                    self._shares[worker] = self._ray.get(asked)
            self._asked[worker] = self._actors[worker].share.remote()
        return self._shares

    def _answer(self, call: Any) -> Answer[Any] | Lost:
        errors = self._ray.exceptions
        try:
            answer: Answer[Any] = self._ray.get(call)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # on any machine again
            cause = getattr(error, "cause", None) or error
            text = str(cause).strip().splitlines()[-1] if str(cause).strip() else ""
            where = getattr(error, "ip", "") or "a machine of the cluster"
            return Answer(None, portable(RuntimeError(f"{type(cause).__name__}: {text}"), where))
        except errors.RayError as error:
            return Lost(_first(error).partition(". ")[0])
        return answer


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _cluster_lost(error: Exception) -> ClusterLost:
    return ClusterLost(f"the cluster was lost ({_first(error)}); the same command continues")

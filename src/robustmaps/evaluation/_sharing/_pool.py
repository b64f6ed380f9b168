"""Batches shared out to workers that may be lost: results come in order, and what is lost is made again elsewhere."""

import math
import time
from bisect import insort
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from torch import nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import counted
from robustmaps.evaluation._identity import Identity
from robustmaps.evaluation._sharing._batches import Attacked, Batch
from robustmaps.evaluation._sharing._worker import Answer, Opened, Setup

_POLL_S = 0.3
_LOOK_S = 5.0
_ROOM_S = 10.0
# Batches that a worker may be ahead of the first one that is missing: they are only recorded after it.
_AHEAD = 4


class Lost(str):
    """Why a worker was lost."""

    __slots__ = ()


class WorkerLost(RuntimeError):  # noqa: N818 - named after what happened
    """Workers were lost again and again."""


class Machines(Protocol):
    """Where workers run, each known by a number; see `RayMachines`."""

    def send(self, model: nn.Module, setup: Setup) -> Any:
        """Put both where all workers can fetch them; returns what stands for them. `InputError`: see `packed`."""

    def room(self) -> int:
        """The number of workers that the machines of this moment have room for."""

    def start(self) -> int:
        """Start a worker as soon as there is room."""

    def stop(self, worker: int) -> None:
        """Give up a worker."""

    def open(self, worker: int, sent: Any) -> None:
        """Let a worker open what was sent."""

    def attack(self, worker: int, batch: Batch) -> None:
        """Let a worker attack a batch."""

    def answers(self, timeout_s: float) -> dict[int, Answer[Any] | Lost]:
        """What workers have answered, after a wait for the first."""

    def shares(self) -> dict[int, float]:
        """By worker, the share of its batch that is done, as far as known."""


@dataclass
class _State:
    """A worker.

    Attributes:
        setup: the number of the setup that it has opened, or is opening.
        opening: whether it is opening it.
        ticket: the batch at which it works, with the number of its round; None without one.
    """

    setup: int = 0
    opening: bool = False
    ticket: tuple[int, int] | None = None

    @property
    def idle(self) -> bool:
        return not self.opening and self.ticket is None


@dataclass
class _Round:
    """Batches that are asked for together.

    Attributes:
        number: of the round.
        waiting: those that nobody works at, in order.
        done: results and errors of those that are not yielded yet.
        losses: why workers were lost at a batch.
    """

    number: int
    waiting: list[int] = field(default_factory=list)
    done: dict[int, Attacked | Exception] = field(default_factory=dict)
    losses: dict[int, list[Lost]] = field(default_factory=dict)


class WorkerPool:
    """Workers that attack the batches of evaluations, one evaluation after the other.

    Made by `RayWorkers.started`.

    Args:
        machines: where they run.
        retries: how often a batch is attacked again after the loss of its worker.
        noted: told in words when a worker is lost, and the like.
    """

    def __init__(self, machines: Machines, retries: int = 3, noted: Callable[[str], None] = lambda _: None) -> None:
        self._machines, self._retries, self._noted = machines, retries, noted
        self._workers: dict[int, _State] = {}
        self._setup, self._sent, self._identity = 0, None, Identity("", "", built_in=False)
        self._opened: list[Opened] = []
        self._lost_opening: list[Lost] = []  # one after the other
        self._round = _Round(0)
        self._looked = self._ready = -math.inf
        self._room = 0

    def open(self, model: nn.Module, identity: Identity, setup: Setup, most: int) -> str:
        """Let workers open a network, and wait for the first of them.

        Args:
            model: the network.
            identity: its identity.
            setup: how they attack it.
            most: the largest number of workers that there is work for.

        Returns:
            What it computes on, for records.

        Raises:
            InputError: the network can't be sent, or a worker can't open it or opens something else.
            WorkerLost: workers were lost again and again.
        """
        self._round = _Round(self._round.number + 1)
        self._sent = self._machines.send(model, setup)
        self._setup, self._identity = self._setup + 1, identity
        self._opened, self._lost_opening = [], []
        self._looked, self._ready = -math.inf, time.monotonic()
        while not self._opened:
            self._staff(most)
            self._hear()
        return self._opened[0].device

    def attacked(
        self, parts: Sequence[list[int]], batch: Callable[[list[int]], Batch], ahead: Callable[[float], None]
    ) -> Generator[Attacked]:
        """See `Attackers`; batches are handed out as workers become free."""
        self._round = this = _Round(self._round.number + 1, [*range(len(parts))])
        try:
            for first in range(len(parts)):
                while first not in this.done:
                    self._staff(len(parts) - first)
                    self._hand_out(parts, batch, first)
                    self._hear()
                    ahead(self._ahead(parts))
                outcome = this.done.pop(first)
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:  # what workers still answer is of no use to anybody
            self._round = _Round(this.number + 1)

    def _staff(self, wanted: int) -> None:
        """Start as many workers as there is work and room for, and let those without the network open it."""
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked, self._room = now, self._machines.room()
        enough = len(self._lost_opening) > self._retries  # more would be lost, too, such as where memory lacks
        while len(self._workers) < min(wanted, self._room) and not enough:
            self._workers[self._machines.start()] = _State()
        for worker, state in self._workers.items():
            if state.idle and state.setup != self._setup:
                self._machines.open(worker, self._sent)
                state.setup, state.opening = self._setup, True
        if enough and not any(state.setup == self._setup for state in self._workers.values()):
            raise WorkerLost(
                f"{counted(len(self._lost_opening), 'worker')} were lost at the start, at last: "
                f"{self._lost_opening[-1]}"
            )
        if any(self._has_network(state) for state in self._workers.values()):
            self._ready = now
        elif now - self._ready > _ROOM_S and not self._machines.room():
            self._ready = math.inf
            self._noted("no machine that is left has room for a worker; waits for one to join, or Ctrl-C stops")

    def _has_network(self, state: _State) -> bool:
        return state.setup == self._setup and not state.opening

    def _hand_out(self, parts: Sequence[list[int]], batch: Callable[[list[int]], Batch], first: int) -> None:
        this = self._round
        for worker, state in self._workers.items():
            if not this.waiting or this.waiting[0] >= first + _AHEAD * len(self._workers):
                return
            if state.idle and self._has_network(state):
                index = this.waiting.pop(0)
                state.ticket = this.number, index
                self._machines.attack(worker, batch(parts[index]))

    def _hear(self) -> None:
        """Take in what workers have answered, all of it before an error is raised."""
        errors: list[Exception] = []
        for worker, answer in self._machines.answers(_POLL_S).items():
            state = self._workers[worker]
            opening, ticket, state.opening, state.ticket = state.opening, state.ticket, False, None
            if isinstance(answer, Lost):
                self._take_loss(worker, answer, ticket, opening=opening)
            elif opening and state.setup == self._setup:
                error = self._take_opened(state, answer)
                errors += [] if error is None else [error]
            elif ticket is not None and ticket[0] == self._round.number:
                self._round.done[ticket[1]] = answer.error or cast(Attacked, answer.value)
        if errors:
            raise errors[0]

    def _take_opened(self, state: _State, answer: Answer[Opened]) -> Exception | None:
        error = answer.error
        if answer.value is not None:
            try:
                answer.value.check(self._identity)
            except InputError as other:
                error = other
            else:
                self._opened.append(answer.value)
                self._lost_opening.clear()
        if error is not None:
            state.setup = 0  # it has none
        return error

    def _take_loss(self, worker: int, loss: Lost, ticket: tuple[int, int] | None, *, opening: bool) -> None:
        del self._workers[worker]
        self._machines.stop(worker)
        self._looked = -math.inf
        if ticket is None or ticket[0] != self._round.number:
            self._noted(f"a worker was lost ({loss})")
            self._lost_opening += [loss] if opening else []
            return
        _, index = ticket
        losses = self._round.losses.setdefault(index, [])
        losses.append(loss)
        if len(losses) > self._retries:
            self._round.done[index] = WorkerLost(
                f"the worker of a batch was lost {counted(len(losses), 'time')}, at last: {loss}; the results before "
                "it are kept, and a smaller batch size may help"
            )
            return
        self._noted(f"a worker was lost ({loss}); its batch is attacked again elsewhere")
        insort(self._round.waiting, index)

    def _ahead(self, parts: Sequence[list[int]]) -> float:
        """Images that are done beyond those that were yielded."""
        this, shares = self._round, self._machines.shares()
        busy = {worker: state.ticket for worker, state in self._workers.items() if state.ticket is not None}
        under_way = sum(
            shares.get(worker, 0.0) * len(parts[index])
            for worker, (number, index) in busy.items()
            if number == this.number
        )
        finished = sum(len(parts[index]) for index, outcome in this.done.items() if isinstance(outcome, Attacked))
        return finished + under_way

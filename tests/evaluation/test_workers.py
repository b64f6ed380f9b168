"""Batches that workers attack, who answer in any order and may be lost: the same evaluation as without them."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps import InputError, evaluate
from robustmaps.attacks import APGD, PGD, Square
from robustmaps.engine import ranks
from robustmaps.engine.errors import NoGradientError
from robustmaps.engine.progress import Progress
from robustmaps.engine.ranks.present import Place
from robustmaps.evaluation import ROBUST, Evaluation, RayWorkers, WorkerPool, with_consistency
from robustmaps.evaluation._sharing import _pool
from robustmaps.evaluation._sharing._pool import Lost, WorkerLost
from robustmaps.evaluation._sharing._worker import Worker, packed

ATTACK = [PGD(eps=0.12, steps=5), APGD(eps=0.12, steps=8), Square(eps=0.12, queries=20)]


class Killed(BaseException):
    """Like a signal: nothing in the package catches it."""


@dataclass
class KillAt:
    """Kills when it has heard of so many reports."""

    reports: int

    def __call__(self, progress: Progress) -> None:
        self.reports -= 1
        if self.reports == 0:
            raise Killed


class Turns:
    """Workers of this process that take turns; all that they get and answer is pickled.

    Args:
        size: room for so many.
        turn: by how much the place of the next call moves among those that wait.
        lost: whether the worker is lost at a call, by the number of calls so far and the name of the call.
    """

    def __init__(
        self, size: int = 3, turn: int = 5, lost: Callable[[int, str], bool] = lambda _number, _name: False
    ) -> None:
        self.size, self.turn, self.lost = size, turn, lost
        self.workers: dict[int, Worker] = {}
        self.calls: list[tuple[int, str, bytes]] = []
        self.made: list[str] = []
        self.started = self.most_waiting = 0

    def send(self, model: nn.Module, setup: Any) -> Any:
        return packed(model), setup

    def room(self) -> int:
        return self.size

    def start(self) -> int:
        self.started += 1
        self.workers[self.started] = Worker("cpu", torch.get_num_threads())
        return self.started

    def stop(self, worker: int) -> None:
        del self.workers[worker]

    def open(self, worker: int, sent: Any) -> None:
        self.calls.append((worker, "open", pickle.dumps(sent)))

    def attack(self, worker: int, batch: Any) -> None:
        assert worker not in [busy for busy, *_ in self.calls]
        self.calls.append((worker, "attack", pickle.dumps((batch,))))

    def answers(self, timeout_s: float) -> dict[int, Any]:
        if not self.calls:
            return {}
        worker, name, given = self.calls.pop(self.turn * len(self.made) % len(self.calls))
        self.made.append(name)
        if self.lost(len(self.made), name):
            return {worker: Lost("its node died")}
        return {worker: pickle.loads(pickle.dumps(getattr(self.workers[worker], name)(*pickle.loads(given))))}

    def shares(self) -> dict[int, float]:
        return {worker: 0.5 for worker, name, _ in self.calls if name == "attack"}


@pytest.fixture(scope="module")
def images(digits_test: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits_test[0][:48], digits_test[1][:48]


@pytest.fixture(scope="module")
def alone(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> tuple[Evaluation, Tensor]:
    """The evaluation by one process, with its adversarial images."""
    kept = images[0].clone()
    return evaluate(robust_network, *images, ATTACK, batch_size=8, adversarials=kept), kept


def timeless(evaluation: Evaluation) -> Evaluation:
    stages = tuple({**stage, "seconds": 0.0} for stage in evaluation.stages)
    return replace(evaluation, seconds=0.0, stages=stages)


@pytest.mark.parametrize(("size", "turn"), [(1, 0), (3, 0), (3, 5)])
def test_workers_change_nothing_but_the_time(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], alone: tuple[Evaluation, Tensor], size: int, turn: int
) -> None:
    kept, machines = images[0].clone(), Turns(size, turn)
    found = evaluate(robust_network, *images, ATTACK, batch_size=8, adversarials=kept, workers=WorkerPool(machines))
    assert timeless(found) == timeless(alone[0])
    assert torch.equal(kept, alone[1])
    assert machines.started == size
    assert machines.made.count("open") == size


@pytest.mark.parametrize("numbers", [{1}, {4}, {4, 5, 6}, {1, 3, 5, 7, 9, 11}])
def test_what_is_lost_is_made_again(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], alone: tuple[Evaluation, Tensor], numbers: set[int]
) -> None:
    machines, notes = Turns(lost=lambda number, _: number in numbers), list[str]()
    pool = WorkerPool(machines, noted=notes.append)
    found = evaluate(robust_network, *images, ATTACK, batch_size=8, workers=pool)
    assert timeless(found) == timeless(alone[0])
    assert len(notes) == len(numbers)
    assert all("a worker was lost (its node died)" in note for note in notes)


def test_a_batch_that_always_takes_its_worker_along_ends_the_evaluation_with_what_it_has(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], alone: tuple[Evaluation, Tensor], tmp_path: Path
) -> None:
    pool = WorkerPool(Turns(1, lost=lambda number, name: number > 4 and name == "attack"), retries=2)
    with pytest.raises(WorkerLost, match="lost 3 times, at last: its node died; the results before it are kept"):
        evaluate(robust_network, *images, ATTACK, batch_size=8, workers=pool, state=tmp_path)
    heard: list[Progress] = []
    found = evaluate(robust_network, *images, ATTACK, state=tmp_path, watcher=heard.append)
    assert timeless(found) == timeless(alone[0])
    assert heard[0].done == 3 * 8


def test_workers_that_never_come_up_end_the_evaluation(
    robust_network: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    pool = WorkerPool(Turns(lost=lambda _, name: name == "open"))
    with pytest.raises(WorkerLost, match="4 workers were lost at the start, at last: its node died"):
        evaluate(robust_network, *images, ATTACK, workers=pool)


def test_workers_that_do_not_come_up_any_more_are_not_started_for_ever(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], alone: tuple[Evaluation, Tensor]
) -> None:
    """As where a machine has cores for more workers than its memory holds."""
    machines = Turns(lost=lambda number, name: name == "open" and number > 1)
    found = evaluate(robust_network, *images, ATTACK, batch_size=8, workers=WorkerPool(machines))
    assert timeless(found) == timeless(alone[0])
    assert machines.made.count("open") in (5, 6)  # one that came up, and three tries again; two at once


class Gone(Turns):
    """All machines but one are lost together."""

    def answers(self, timeout_s: float) -> dict[int, Any]:
        busy = [worker for worker, name, _ in self.calls if name == "attack"]
        if self.size == 1 or len(busy) < self.size:
            return super().answers(timeout_s)
        self.size = 1
        self.calls = [call for call in self.calls if call[0] == busy[-1]]
        return dict.fromkeys(busy[:-1], Lost("its node died"))


def test_the_batches_of_many_lost_machines_are_made_again_in_order(
    robust_network: nn.Module,
    images: tuple[Tensor, Tensor],
    alone: tuple[Evaluation, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_pool, "_AHEAD", 1)
    found = evaluate(robust_network, *images, ATTACK, batch_size=8, workers=WorkerPool(Gone(4)))
    assert timeless(found) == timeless(alone[0])


@pytest.mark.parametrize("shared_first", [True, False])
@pytest.mark.parametrize("reports", [2, 12, 20])
def test_an_evaluation_goes_on_with_and_without_workers(
    robust_network: nn.Module,
    images: tuple[Tensor, Tensor],
    alone: tuple[Evaluation, Tensor],
    tmp_path: Path,
    shared_first: bool,
    reports: int,
) -> None:
    first, second = (WorkerPool(Turns()), None) if shared_first else (None, WorkerPool(Turns()))
    kept = images[0].clone()
    options: dict[str, Any] = {"batch_size": 8, "state": tmp_path, "adversarials": kept}
    with pytest.raises(Killed):
        evaluate(robust_network, *images, ATTACK, **options, workers=first, watcher=KillAt(reports))
    found = evaluate(robust_network, *images, ATTACK, **options, workers=second)
    assert timeless(found) == timeless(alone[0])
    assert torch.equal(kept, alone[1])


def test_workers_go_on_with_the_next_evaluation(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], alone: tuple[Evaluation, Tensor]
) -> None:
    """Also after one that was stopped with batches under way, whose late answers belong to nobody."""
    machines = Turns()
    pool = WorkerPool(machines)
    with pytest.raises(Killed):
        evaluate(robust_network, *images, ATTACK, batch_size=8, workers=pool, watcher=KillAt(4))
    assert machines.calls
    found = evaluate(robust_network, *images, ATTACK, batch_size=8, workers=pool)
    assert timeless(found) == timeless(alone[0])
    options: dict[str, Any] = {"batch_size": 8, "precision": "fp32"}
    both = [
        with_consistency(robust_network, images[0], ATTACK, found, workers=each, **options) for each in (pool, None)
    ]
    assert both[0].misclassified is not None
    assert both[1].misclassified is not None
    assert both[0].misclassified.verdicts == both[1].misclassified.verdicts
    assert machines.started == 3


@dataclass(frozen=True)
class Greedy:
    """Runs out of memory on large batches, and raises at a certain image."""

    most: int = 10**9
    row: int = -1
    eps: float = 0.12
    norm = "linf"
    name = "greedy"

    def __call__(self, model: Callable[..., Tensor], x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        if len(x) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        if bool((x.flatten(1).sum(1) == MARK).any()):
            raise NoGradientError("of this image")
        return PGD(eps=self.eps, steps=3)(model, x, y, generator=generator)  # type: ignore[arg-type]


MARK = 64.0  # the sum of an image that is white


@pytest.mark.filterwarnings("ignore:out of memory")
def test_the_batch_is_halved_where_the_memory_of_a_worker_runs_out(
    robust_network: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    pool = WorkerPool(Turns())
    found, expected = (
        evaluate(robust_network, *images, Greedy(most=10), batch_size=32, workers=workers) for workers in (pool, None)
    )
    assert timeless(found) == timeless(expected)
    assert found.environment["batch_size"] == 8
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(robust_network, *images, Greedy(most=0), batch_size=2, workers=pool)


def test_an_error_is_raised_in_its_turn_with_the_name_of_the_machine(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images[0].clone(), images[1].clone()
    x[30] = 1.0
    y[30] = int(robust_network(x[30:31]).argmax())
    with pytest.raises(NoGradientError, match=r"gives no gradient .* \(of this image\)") as caught:
        evaluate(robust_network, x, y, Greedy(), batch_size=8, state=tmp_path, workers=WorkerPool(Turns()))
    assert str(caught.value).count("gives no gradient") == 1
    heard: list[Progress] = []
    with pytest.raises(NoGradientError):
        evaluate(robust_network, x, y, Greedy(), state=tmp_path, watcher=heard.append)
    assert heard[0].done >= 16  # what came before it is kept, also where it was later


class Late(Turns):
    """The first batch is attacked when there is nothing else to do."""

    before = -1

    def answers(self, timeout_s: float) -> dict[int, Any]:
        if "attack" in [name for _, name, _ in self.calls] and self.before < 0:
            late = min(self.calls, key=lambda call: call[1] == "open")
            self.calls.remove(late)
            if self.calls:
                found = super().answers(timeout_s)
                self.calls.insert(0, late)
                return found
            self.calls, self.before = [late], self.made.count("attack")
        return super().answers(timeout_s)


def test_batches_wait_for_one_that_is_late(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a killed evaluation would lose all that came after it."""
    monkeypatch.setattr(_pool, "_AHEAD", 2)
    machines, attack = Late(2), PGD(eps=0.12, steps=2)
    found, expected = (
        evaluate(robust_network, *images, attack, batch_size=4, workers=workers)
        for workers in (WorkerPool(machines), None)
    )
    assert found.verdicts == expected.verdicts
    assert machines.before == 3  # of the four that two workers may have begun, all but the first


def test_reports_count_what_is_under_way(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    heard: list[Progress] = []
    evaluate(
        robust_network,
        *images,
        PGD(eps=0.12, steps=2),
        batch_size=16,
        workers=WorkerPool(Turns(2)),
        watcher=heard.append,
    )
    total = heard[-1].total
    done = [progress.done for progress in heard]
    assert done[0] == 0
    assert done[-1] == total
    assert 8 in done or 16 + 8 in done  # half of a batch


class Unsendable(nn.Sequential):
    def __reduce__(self) -> Any:
        raise TypeError("holds a socket")


class Forgetful(nn.Sequential):
    """Computes something else once it was sent."""

    scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x).sin() * self.scale
        return y + torch.roll(y, 1, 1) * (self.scale != 1)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "scale"}


def linear(kind: type[nn.Sequential]) -> nn.Sequential:
    torch.manual_seed(0)
    return kind(nn.Flatten(), nn.Linear(64, 10)).eval()


@pytest.mark.filterwarnings("ignore:the network can't be copied", "ignore:attacks run")
def test_a_network_that_can_not_be_sent_is_refused(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"can't be sent to workers, .* \(.*holds a socket\); .* torchrun"):
        evaluate(linear(Unsendable), *images, PGD(eps=0.1), workers=WorkerPool(Turns()), checks=False)


@pytest.mark.filterwarnings("ignore:attacks run")
def test_a_network_that_is_another_one_there_is_refused(images: tuple[Tensor, Tensor]) -> None:
    network = linear(Forgetful)
    evaluate(network, *images, [PGD(eps=0.1)], workers=WorkerPool(Turns()), checks=False)
    network.scale = 2.0  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"the network computes something else on .* than here"):
        evaluate(network, *images, [PGD(eps=0.1)], workers=WorkerPool(Turns()), checks=False)


def test_a_worker_with_other_versions_is_refused(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Turns()
    answers = machines.answers

    def other(timeout_s: float) -> dict[int, Any]:
        return {
            worker: replace(answer, value=replace(answer.value, versions={**answer.value.versions, "torch": "1.0"}))
            for worker, answer in answers(timeout_s).items()
        }

    monkeypatch.setattr(machines, "answers", other)
    with pytest.raises(InputError, match=r"has torch 1\.0, this process robustmaps .*; install the same everywhere"):
        evaluate(robust_network, *images, ATTACK, workers=WorkerPool(machines))


def test_no_room_is_told_once(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pool, "_ROOM_S", 0.0)
    monkeypatch.setattr(_pool, "_LOOK_S", 0.0)
    rooms: Iterator[int] = iter([0] * 20)
    machines, notes = Turns(), list[str]()
    monkeypatch.setattr(machines, "room", lambda: next(rooms, 2))
    few = images[0][:4], images[1][:4]
    pool = WorkerPool(machines, noted=notes.append)
    found = evaluate(robust_network, *few, PGD(eps=0.12, steps=2), workers=pool)
    assert len(found.verdicts) == 4
    (note,) = notes
    assert "no machine that is left has room for a worker" in note


def test_without_an_attack_no_worker_is_started(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    machines = Turns()
    found = evaluate(robust_network, *images, [], workers=WorkerPool(machines))
    assert ROBUST in found.verdicts
    assert machines.started == 0


def test_ranks_share_the_work_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "here", Place(0, 2, 2))
    assert ranks.size() == 2
    with pytest.raises(InputError, match="executor=ray: 2 ranks share the work already"):
        RayWorkers().check()

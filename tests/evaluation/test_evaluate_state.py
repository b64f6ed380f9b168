"""An evaluation that is stopped, runs out of memory or fails loses nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps import InputError, evaluate
from robustmaps.attacks import PGD, AutoAttack
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import ROBUST, WRONG, Evaluation, EvaluationWarning

ATTACK = AutoAttack(eps=0.12, version=("apgd-ce", "apgd-dlr", "fab-t"))


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


def timeless(evaluation: Evaluation) -> Evaluation:
    stages = tuple({**stage, "seconds": 0.0} for stage in evaluation.stages)
    return replace(evaluation, seconds=0.0, stages=stages)


@pytest.fixture(scope="module")
def images(digits_test: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits_test[0][:48], digits_test[1][:48]


@pytest.fixture(scope="module")
def uninterrupted(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> Evaluation:
    return evaluate(robust_network, *images, ATTACK, batch_size=16)


def test_a_state_without_counted_passes_goes_on_without_them(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], uninterrupted: Evaluation, tmp_path: Path
) -> None:
    """As an earlier version wrote it: a sum of the rest would look like all passes."""
    with pytest.raises(Killed):
        evaluate(robust_network, *images, ATTACK, batch_size=16, state=tmp_path, watcher=KillAt(9))
    file = tmp_path / "state.json"
    state = {name: value for name, value in json.loads(file.read_text()).items() if name != "checksum"}
    for stage in state["found"]["stages"]:
        del stage["passes"]
    file.write_text(json.dumps(state))
    resumed = evaluate(robust_network, *images, ATTACK, state=tmp_path)
    assert resumed.verdicts == uninterrupted.verdicts
    assert ["passes" in stage for stage in resumed.stages] != [True] * 3
    assert resumed.passes is None
    assert "passes" not in resumed.to_dict()


@pytest.mark.parametrize("reports", [1, 4, 9, 14, 18])
def test_killed_at_any_moment_it_goes_on_to_the_same_result(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], uninterrupted: Evaluation, tmp_path: Path, reports: int
) -> None:
    with pytest.raises(Killed):
        evaluate(robust_network, *images, ATTACK, batch_size=16, state=tmp_path / "state", watcher=KillAt(reports))
    resumed = evaluate(robust_network, *images, ATTACK, state=tmp_path / "state")
    assert timeless(resumed) == timeless(uninterrupted)


def test_what_is_done_is_not_done_again(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    finished = evaluate(robust_network, *images, ATTACK, batch_size=16, state=tmp_path)
    heard: list[Progress] = []
    again = evaluate(robust_network, *images, ATTACK, state=tmp_path, watcher=heard.append)
    assert timeless(again) == timeless(finished)
    assert [p.phase for p in heard] == ["apgd-ce", "apgd-dlr", "fab-t"]


def test_the_images_found_before_the_kill_are_kept(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = images
    kept = x.clone()
    for reports in (4, 12):
        with pytest.raises(Killed):
            evaluate(
                robust_network, x, y, ATTACK, state=tmp_path, batch_size=16, adversarials=kept, watcher=KillAt(reports)
            )
    evaluation = evaluate(robust_network, x, y, ATTACK, state=tmp_path, adversarials=kept)
    broken = torch.from_numpy(evaluation.clean_correct & ~evaluation.robust_correct)
    assert broken.sum() > 5
    with torch.no_grad():
        assert bool((robust_network(kept[broken]).argmax(1) != y[broken]).all())
    assert torch.equal(kept[~broken], x[~broken])
    for row in broken.nonzero().flatten().tolist():
        assert float((kept[row] - x[row]).abs().max()) == pytest.approx(evaluation.distances[row], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another seed"),
        ({"attack": PGD(eps=0.12)}, "another attack"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}, "another network"),
        ({"x": torch.zeros(48, 1, 8, 8)}, "another set of images"),
    ],
)
def test_the_state_of_something_else_is_refused(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"model": robust_network, "x": images[0], "y": images[1], "attack": ATTACK}
    with pytest.raises(Killed):
        evaluate(**given, state=tmp_path, watcher=KillAt(3))
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(InputError, match=message):
        evaluate(**{**given, **change}, state=tmp_path)
    assert (tmp_path / "state.json").read_bytes() == before


def test_a_damaged_state_is_refused(robust_network: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(InputError, match="not the intact state of an evaluation"):
        evaluate(robust_network, *images, ATTACK, state=tmp_path)


class Failing(nn.Module):
    """A network that raises from a given pass on, or for batches above a size."""

    def __init__(self, network: nn.Module, *, passes: float = float("inf"), most: int = 10**9, error: str = "") -> None:
        super().__init__()
        self.network, self.passes, self.most, self.error = network, passes, most, error

    def forward(self, x: Tensor) -> Tensor:
        self.passes -= 1
        if self.passes < 0 or len(x) > self.most:
            raise RuntimeError(self.error)
        return self.network(x)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("not to be copied, so that passes are counted in one place")


@pytest.mark.filterwarnings("ignore:the network can't be copied")
def test_a_network_that_raises_half_way_loses_nothing(
    robust_network: nn.Module, images: tuple[Tensor, Tensor], uninterrupted: Evaluation, tmp_path: Path
) -> None:
    failing = Failing(robust_network, passes=150, error="the driver is gone")
    with pytest.raises(RuntimeError, match="the driver is gone") as caught:
        # Timing the candidates of precision would take more passes on a faster machine.
        evaluate(failing, *images, ATTACK, batch_size=16, precision="fp32", state=tmp_path)
    assert any("results so far are in" in note for note in caught.value.__notes__)
    found = json.loads((tmp_path / "state.json").read_text())["found"]
    assert sum(stage["done"] for stage in found["stages"]) > 0
    resumed = evaluate(Failing(robust_network), *images, ATTACK, batch_size=16, precision="fp32", state=tmp_path)
    assert resumed.clean_accuracy == uninterrupted.clean_accuracy
    assert abs(resumed.robust_accuracy.successes - uninterrupted.robust_accuracy.successes) <= 1


@pytest.mark.filterwarnings("ignore:the network can't be copied")
def test_the_batch_is_halved_where_memory_runs_out(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    small = Failing(robust_network, most=10, error="CUDA out of memory. Tried to allocate 1 GiB")
    with pytest.warns(UserWarning, match="halved to 16"), pytest.warns(UserWarning, match="halved to 8"):
        evaluation = evaluate(small, *images, PGD(eps=0.12, steps=3), batch_size=32)
    assert evaluation.environment["batch_size"] == 8
    assert "out of memory: batch size halved to 16" in evaluation.warnings
    assert set(evaluation.verdicts) == {ROBUST, WRONG, "pgd"}


@pytest.mark.filterwarnings("ignore:the network can't be copied")
def test_other_errors_halve_nothing(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        evaluate(Failing(robust_network, most=10, error="shapes differ"), *images, PGD(eps=0.12), batch_size=32)


def test_a_network_for_other_images_says_so(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"can't take 1 image of shape \(1, 8, 8\): RuntimeError: .* channels"):
        evaluate(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()), *images, PGD(eps=0.12))


@pytest.mark.filterwarnings("ignore:attacks run on the network itself")
def test_checks_that_a_network_refuses_are_said_and_the_evaluation_goes_on(
    robust_network: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    class NotFour(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 4:
                raise LookupError("four images")
            return robust_network(x)  # type: ignore[no-any-return]

    few = images[0][:32], images[1][:32]
    with pytest.warns(EvaluationWarning, match=r"could not be made \(passes\): the network raised four images"):
        found = evaluate(NotFour().eval(), *few, [], batch_size=8)
    assert found.verdicts == evaluate(robust_network, *few, [], batch_size=8).verdicts


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_bad_batch_sizes(robust_network: nn.Module, images: tuple[Tensor, Tensor], batch_size: int) -> None:
    with pytest.raises(InputError, match="batch_size="):
        evaluate(robust_network, *images, PGD(eps=0.12), batch_size=batch_size)


def test_a_larger_budget_goes_on_from_a_smaller_one(robust_network: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    attacked: list[int] = []

    @dataclass(frozen=True)
    class Counting:
        eps: float
        norm = "linf"
        name = "counting"

        def __call__(self, model: Callable[..., Tensor], x: Tensor, y: Tensor, *, generator: object = None) -> Tensor:
            attacked.append(len(x))
            return PGD(eps=self.eps, steps=5, start="none")(model, x, y)  # type: ignore[arg-type]

    small = evaluate(robust_network, *images, Counting(0.05))
    large = evaluate(robust_network, *images, Counting(0.15), smaller=small)
    assert attacked == [small.clean_accuracy.successes, small.robust_accuracy.successes]
    for before, after, distance in zip(small.verdicts, large.verdicts, large.distances, strict=True):
        assert before == ROBUST or after == before
        assert distance is None or distance <= 0.15 + 1e-6
    with pytest.raises(InputError, match="other images"):
        evaluate(robust_network, images[0][:5], images[1][:5], Counting(0.2), smaller=small)

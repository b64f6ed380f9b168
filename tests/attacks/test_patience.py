"""Giving up runs without prospect saves passes and changes hardly a verdict."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.attacks import APGD, FAB, AutoAttack, Square
from robustmaps.attacks._patience import hopeless
from robustmaps.engine.errors import InputError
from tests.helpers.attack_oracles import broken

ATTACKS = [
    APGD(eps=0.12),
    APGD(eps=0.12, loss="dlr-t"),
    APGD("l2", 0.6, loss="dlr-t"),
    APGD("l1", 1.5),
    FAB(eps=0.12, targeted=True),
    FAB("l2", 0.6, targeted=True),
    Square(eps=0.12, queries=1000),
    Square("l2", 0.6, queries=1000),
]


class Counting(nn.Module):
    """Counts the images that pass, and can be run only as a whole."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        if not bool(x.isfinite().all()):  # symbolic tracing can't follow this
            raise AssertionError
        return self.network(x)  # type: ignore[no-any-return]


def one(value: float, before: float, done: int, patience: float | None) -> bool:
    return bool(hopeless(torch.tensor([value]), torch.tensor([before]), done, 100, patience))


def test_a_run_that_gets_there_at_its_pace_is_not_given_up() -> None:
    # From -2 to -1 in 20 steps, 20 steps left: at that pace it ends at 0, exactly.
    assert not one(-1.0, -2.0, 80, 1.0)
    assert one(-1.0, -2.0, 80, 0.99)
    assert one(-1.1, -2.0, 80, 1.0)


@given(st.floats(-5, 0), st.floats(0, 2), st.integers(40, 99), st.floats(0, 5), st.floats(0, 5))
def test_more_patience_never_gives_up_more(value: float, gain: float, done: int, one_: float, other: float) -> None:
    less, more = sorted((one_, other))
    assert one(value, value - gain, done, less) >= one(value, value - gain, done, more)


@pytest.mark.parametrize("done", [0, 20, 39])
def test_no_run_is_given_up_early(done: int) -> None:
    assert not one(-9.0, -9.0, done, 1.0)


def test_what_is_not_known_is_not_given_up() -> None:
    assert not one(-torch.inf, -torch.inf, 60, 1.0)
    assert not one(-1.0, -torch.inf, 60, 1.0)
    assert not one(-9.0, -9.0, 60, None)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: f"{a.name}-{a.norm}")
def test_it_saves_passes_and_changes_hardly_a_verdict(
    attack: APGD | FAB | Square, robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = digits_test[0][:40], digits_test[1][:40]
    passes, verdicts = [], []
    for patience in (None, 3.0):
        network = Counting(robust_network)
        x_adv = replace(attack, patience=patience)(network, x, y, generator=torch.Generator().manual_seed(0))
        passes.append(network.images)
        verdicts.append(broken(robust_network, x_adv, y).tolist())
    # A run draws the same numbers whether others go on or not, so none is won. The network depends on the processor,
    # and on some a sample of 40 is lost to Square in l2 (benchmarks/DETAILS.md).
    assert all(whole or not cut for whole, cut in zip(*verdicts, strict=True))
    assert sum(verdicts[0]) - sum(verdicts[1]) <= 1
    assert 0 < sum(verdicts[0]) < 40
    # In l1 only the last of three balls counts, so that less can be saved.
    assert passes[1] < (0.9 if attack.norm == "l1" else 0.8) * passes[0]


@pytest.mark.parametrize("attack", [APGD, FAB, Square, AutoAttack])
def test_bad_patience(attack: type) -> None:
    with pytest.raises(InputError, match="patience=-1"):
        attack(patience=-1)


def test_randomised_networks_are_given_every_step() -> None:
    assert [stage.patience for stage in AutoAttack(version="rand").stages] == [None, None]
    assert [stage.patience for stage in AutoAttack().stages] == [3.0] * 4

"""Images whose iterates go round in a circle are finished early, with the result that every step would have given."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.attacks._patience import Circles
from robustmaps.engine.view import plain_view
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation import attack_settings

DRAWS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.rand(1),
    "numpy": lambda: np.random.rand(),
    "python": random.random,
}


class ByRow(nn.Module):
    """Two layers without matrix products, so that an image's last bit does not depend on the others in its batch."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("first", scale * torch.randn(8, 2 * 4 * 4, generator=generator))
        self.register_buffer("second", torch.randn(5, 8, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh((x.flatten(1)[:, None] * self.first).sum(-1))
        return (hidden[:, None] * self.second).sum(-1)


class Drawing(ByRow):
    """Calls something with every pass, which may change the logits."""

    def __init__(self, draw: Callable[[], object]) -> None:
        super().__init__(1)
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.draw()
        return super().forward(x) + (drawn if isinstance(drawn, Tensor) and drawn.dim() == 0 else 0.0)


def images(count: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def attacked(attack: PGD, network: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, Passes]:
    y = ByRow(1)(x).argmax(1) if isinstance(network, Drawing) else network(x).argmax(1)
    with plain_view(network) as view:
        found = attack(view, x, y, generator=torch.Generator().manual_seed(seed))
        return found, view.passes


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    eps=st.floats(0.01, 0.6),
    steps=st.integers(1, 70),
    relative_step=st.sampled_from([0.02, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0]),
    early_stop=st.booleans(),
    restarts=st.integers(1, 3),
    loss=st.sampled_from(["ce", "margin", "kl"]),
)
def test_every_step_would_give_the_same_bits(seed: int, scale: float, restarts: int, **options: Any) -> None:
    attack = PGD(restarts=restarts, start="uniform", **options)
    network, x = ByRow(seed, scale), images(seed=seed)
    quick, passes = attacked(attack, network, x, seed)
    whole, all_passes = attacked(replace(attack, exhaustive=True), network, x, seed)
    assert torch.equal(quick, whole)
    assert passes.forward <= all_passes.forward
    assert passes.backward <= all_passes.backward


@pytest.mark.parametrize("early_stop", [True, False])
def test_most_passes_of_a_long_walk_are_saved(early_stop: bool) -> None:
    attack = PGD(eps=0.05, steps=100, relative_step=0.25, early_stop=early_stop)
    _, quick = attacked(attack, ByRow(1), images())
    _, whole = attacked(replace(attack, exhaustive=True), ByRow(1), images())
    assert quick.backward < 0.5 * whole.backward


def test_the_batch_of_a_plain_walk_stays_whole() -> None:
    """What is attacked may be bound to its images, as the margins of an analysis are to their labels."""
    network, x = ByRow(1), images()
    y = network(x).argmax(1)

    class Bound(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return network(images) * (1 + torch.arange(12))[:, None]

    attack = PGD(eps=0.05, steps=100, relative_step=0.25)
    found = attack(Bound(), x, y, generator=torch.Generator().manual_seed(0))
    all_steps = replace(attack, exhaustive=True)
    assert torch.equal(found, all_steps(Bound(), x, y, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("steps", range(60, 66))
def test_the_last_iterate_of_a_circle_of_any_length_is_that_of_the_walk(length: int, steps: int) -> None:
    """A walk along known points, whose logits are their numbers."""
    circle = torch.arange(12 + length)

    def place(done: int) -> int:
        return done if done < 12 else 12 + (done - 12) % length

    circles = Circles(steps)
    for done in range(steps):
        at = circle[place(done)].float()
        ended = circles.ended(at.view(1, 1, 1, 1), at.view(1, 1), done)
        if ended is not None and ended.any():
            assert place(done) == place(steps)
            assert done < 40
            return
    pytest.fail("the circle was not found")


@pytest.mark.parametrize("draw", DRAWS)
def test_networks_that_draw_make_every_step(draw: str) -> None:
    """Even where what they draw changes nothing, as a choice between equal members may."""
    attack = PGD(eps=0.05, steps=40, relative_step=0.25)
    _, passes = attacked(attack, Drawing(DRAWS[draw]), images())
    assert passes.backward == 12 * 40


def test_networks_with_noise_of_their_own_make_every_step() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = Drawing(lambda: 1e-3 * torch.rand((), generator=generator))
    _, passes = attacked(PGD(eps=0.05, steps=40, relative_step=0.25), noisy, images())
    assert passes.backward == 12 * 40


@pytest.mark.parametrize(
    "changes",
    [{"exhaustive": True}, {"step_noise": 1e-3}, {"norm": "l2"}, {"steps": 8}, {"tau": 1, "early_stop": True}],
    ids=str,
)
def test_walks_that_are_no_circles_make_every_step(changes: dict[str, Any]) -> None:
    attack = replace(PGD(eps=0.05, steps=40, relative_step=0.25), **changes)
    _, passes = attacked(attack, ByRow(1), images())
    _, whole = attacked(replace(attack, exhaustive=True), ByRow(1), images())
    assert passes == whole


def test_evaluations_of_before_are_of_the_same_attack() -> None:
    assert "exhaustive" not in attack_settings(PGD())[0]
    assert attack_settings(PGD(exhaustive=True))[0]["exhaustive"] is True

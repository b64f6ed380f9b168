"""What changes as training goes on, and the attacks that only training makes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, NoiseFGSM
from robustmaps.defenses import (
    AT,
    AWP,
    DAJAT,
    FAT,
    NFGSM,
    TRADES,
    Defense,
    FastAT,
    FreeAT,
    FriendlyTRADES,
    Standard,
    at,
    scaled,
    validation_attack,
)
from robustmaps.engine.errors import InputError

MakeNet = Callable[..., nn.Sequential]
MakeImages = Callable[..., Tensor]


def test_friendly_training_gets_less_friendly() -> None:
    assert [at(FAT(), share).tau for share in (0.0, 0.41, 0.42, 0.74, 0.75, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert at(FAT(tau=3), 0.0).tau == 3
    # Of 85 epochs, from the 31st, 51st and 71st on.
    taus = [at(FriendlyTRADES(), epoch / 85).tau for epoch in (0, 29, 30, 49, 50, 69, 70, 84)]
    assert taus == [0, 0, 1, 1, 2, 2, 3, 3]
    assert at(Standard(), 0.5) == Standard()


def test_the_budget_of_dajat_grows() -> None:
    attacks = [at(DAJAT(), share).present_attack for share in (0.1, 0.3, 0.6, 1.0)]
    assert {a.steps for a in attacks} == {5}
    assert [a.eps for a in attacks] == pytest.approx([8 / 255 * share for share in (0.1, 0.3, 0.6, 1.0)])
    assert [a.step_length / a.eps for a in attacks] == pytest.approx([1 / 2] * 4)


def test_fast_at_takes_one_step_of_five_quarters() -> None:
    assert FastAT(PGD(eps=0.1, steps=1)).attack.step_length == pytest.approx(0.125)
    assert FastAT(PGD(eps=0.1, steps=1, step_size=0.1)).attack.step_length == 0.1
    with pytest.raises(InputError, match="steps=10: expected PGD"):
        FastAT(PGD(eps=0.1))


@pytest.mark.parametrize("defense", [AT(), TRADES(), AWP(TRADES()), FastAT(), NFGSM(), FreeAT()], ids=lambda d: d.name)
def test_a_scaled_defence_has_a_scaled_budget_and_steps(defense: Defense) -> None:
    half = scaled(defense, 0.5)
    assert type(half) is type(defense)
    assert half.attack.eps == pytest.approx(defense.attack.eps / 2)
    if isinstance(defense.attack, PGD):
        assert half.attack.step_length == pytest.approx(defense.attack.step_length / 2)
    assert scaled(defense, 1.0) == defense


def test_networks_are_validated_with_labels_and_several_steps() -> None:
    kept = PGD(steps=5, eps=0.1)
    assert validation_attack(kept) == kept
    for weak in (PGD(loss="kl", start="normal"), FGSM(), NoiseFGSM(), FastAT().attack):
        strong = validation_attack(weak)
        assert (strong.loss, strong.steps, strong.start) == ("ce", 10, "uniform")
        assert (strong.norm, strong.eps) == (weak.norm, weak.eps)
    assert validation_attack(None) is None


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_a_friendly_attack_stops_tau_steps_after_the_error(tau: int) -> None:
    # A sigmoid along one pixel: wrong from 0.5 on; steps of 0.1 from 0.28 cross it at the third.
    head = nn.Linear(1, 2)
    head.weight.data = torch.tensor([[0.0], [1.0]])
    head.bias.data = torch.tensor([0.0, -0.5])
    model = nn.Sequential(nn.Flatten(), head)
    x, y = torch.tensor([0.28, 0.0]).view(2, 1, 1, 1), torch.tensor([0, 0])
    friendly = PGD(eps=0.5, steps=7, step_size=0.1, start="none", early_stop=True, tau=tau)
    moved = (friendly(model, x, y) - x).flatten()
    assert float(moved[0]) == pytest.approx(min(0.1 * (3 + tau), 0.5), abs=1e-6)
    assert float(moved[1]) == pytest.approx(0.5, abs=1e-6)


@given(st.sampled_from(["linf", "l2"]), st.floats(0.01, 0.3), st.floats(0, 3), st.integers(0, 100))
def test_noise_fgsm_lies_within_its_reach(norm: Any, eps: float, noise: float, seed: int) -> None:
    attack = NoiseFGSM(norm, eps, noise)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    moved = attack(model, x, torch.tensor([0, 1, 2, 0]), generator=torch.Generator().manual_seed(seed))
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    order = float("inf") if norm == "linf" else 2
    lengths = torch.linalg.vector_norm((moved - x).flatten(1), order, 1)
    assert float(lengths.max()) <= (noise + 1) * eps + 1e-5


def test_noise_below_black_does_not_swallow_the_step() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 64))  # every pixel speaks for class 1
    x_adv = NoiseFGSM(eps=0.1)(
        model, torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64), generator=torch.Generator().manual_seed(0)
    )
    assert float(x_adv.min()) == pytest.approx(0.1)
    assert 0.25 < float(x_adv.max()) <= 0.3
    assert 0.4 < float((x_adv < 0.1 + 1e-6).float().mean()) < 0.6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_noise_fgsm_is_noise_and_a_step(norm: Any, make_cnn: MakeNet, make_images: MakeImages) -> None:
    model, x, y = make_cnn().eval(), make_images(16), torch.arange(16) % 10
    ours = NoiseFGSM(norm, eps=0.1, noise=0.0)(model, x, y)
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    lengths = torch.linalg.vector_norm(leaf.grad.flatten(1), dim=1).view(-1, 1, 1, 1)
    direction = leaf.grad.sign() if norm == "linf" else leaf.grad / lengths
    assert torch.allclose(ours, (x + 0.1 * direction).clamp(0, 1), atol=1e-5)
    noisy = NoiseFGSM(norm, eps=0.1)(model, torch.full_like(x, 0.5), y, generator=torch.Generator().manual_seed(0))
    assert float((noisy - 0.5).abs().max()) > (0.2 if norm == "linf" else 0.0)


def test_free_training_moves_the_perturbation_with_the_gradient_of_the_step() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = torch.full((3, 1, 2, 2), 0.5)
    y = torch.tensor([0, 1, 0])
    seen: list[Tensor] = []
    gradients: list[Tensor] = []
    defense = FreeAT(FGSM(eps=0.1), replays=3)

    def step(x_adv: Tensor) -> None:
        seen.append(x_adv.detach().clone())
        defense.outer(model, x, x_adv, y).value.backward()
        gradients.append(x_adv.grad.clone())

    delta = defense.replay(x, None, step)
    expected = torch.zeros_like(x)
    for images, gradient in zip(seen, gradients, strict=True):
        assert torch.allclose(images, x + expected)
        expected = (expected + 0.1 * gradient.sign()).clamp(-0.1, 0.1)
    assert torch.allclose(delta, expected)
    # A smaller batch uses and moves the first rows.
    seen.clear()
    y = y[:2]
    after = defense.replay(x[:2], delta, step)
    assert torch.allclose(seen[0], x[:2] + delta[:2])
    assert torch.equal(after[2], delta[2])

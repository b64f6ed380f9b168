"""Adversarial weight perturbation: how far weights move, and that they come back."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.defenses import ALP, AT, AWP, DAJAT, FAT, HAT, MART, TRADES, FastAT, FreeAT, Loss, Minimax, Standard
from robustmaps.engine.errors import InputError

ATTACK = PGD(eps=0.1, steps=2)
MakeNet = Callable[..., nn.Sequential]
MakeImages = Callable[..., Tensor]


@dataclass(frozen=True)
class Watched(Minimax[Tensor]):
    """Plain cross-entropy that notes the weights it was computed at, and may fail at the second pass."""

    seen: list[list[Tensor]] = field(default_factory=list, compare=False)
    fails: bool = False
    attack = None
    name = "watched"

    def inner(self, model: Any, x: Tensor, y: Tensor, generator: Any) -> Tensor:
        return x

    def outer(self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, targets: Tensor | None = None) -> Loss:
        self.seen.append([p.detach().clone() for p in model.parameters()])
        if self.fails and len(self.seen) == 2:
            raise RuntimeError("out of memory")
        return Loss(F.cross_entropy(model(x), y))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_weights_move_by_their_share_along_the_gradient(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model, x, y = make_cnn(), make_images(8), torch.arange(8)
    watched = Watched()
    AWP(watched, gamma=0.02).loss(model, x, y)
    twin = copy.deepcopy(model)
    F.cross_entropy(twin(x), y).backward()
    first, second = watched.seen
    for name, before, after, p in zip(dict(twin.named_parameters()), first, second, twin.parameters(), strict=True):
        move = after - before
        if p.dim() == 1:
            assert torch.equal(before, after), name
            continue
        assert float(move.norm() / before.norm()) == pytest.approx(0.02, rel=1e-4), name
        assert float(F.cosine_similarity(move.flatten(), p.grad.flatten(), 0)) == pytest.approx(1.0, abs=1e-4), name


@pytest.mark.parametrize(
    "inner",
    [
        AT(ATTACK),
        ALP(ATTACK),
        TRADES(ATTACK),
        MART(ATTACK),
        FAT(ATTACK),
        DAJAT(ATTACK),
        HAT(nn.Sequential(nn.AdaptiveMaxPool2d((3, 1)), nn.Flatten()), ATTACK),
    ],
    ids=lambda d: d.name,
)
def test_every_layer_moves_by_its_share_under_every_defence(
    inner: Minimax[Any], make_cnn: MakeNet, make_images: MakeImages
) -> None:
    model, x, y = make_cnn().train(), make_images(8), torch.arange(8)
    seen: list[list[Tensor]] = []
    model.register_forward_pre_hook(lambda *_: seen.append([p.detach().clone() for p in model.parameters()]))
    AWP(inner, gamma=0.02).loss(model, x, y, generator=torch.Generator().manual_seed(0))
    for before, after in zip(seen[0], seen[-1], strict=True):
        share = 0.02 if before.dim() > 1 else 0.0
        assert float((after - before).norm()) == pytest.approx(share * float(before.norm()), rel=1e-3)


def test_a_network_without_weights_to_move_is_refused(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model = make_cnn()
    for p in model.parameters():
        p.requires_grad_(p.dim() == 1)
    with pytest.raises(InputError, match="at-awp: the network has no weights to perturb"):
        AWP(AT(ATTACK)).loss(model, make_images(8), torch.arange(8))


@pytest.mark.parametrize("warmup", [-0.1, 1.0, 10])
def test_a_warm_up_that_never_ends_is_refused(warmup: float) -> None:
    with pytest.raises(InputError, match=r"expected a share of training in \[0, 1\), such as 10/200"):
        AWP(TRADES(), warmup=warmup)


def test_the_gradient_is_that_at_the_moved_weights(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model, x, y = make_cnn(), make_images(8), torch.arange(8)
    watched = Watched()
    loss = AWP(watched, gamma=0.05).loss(model, x, y)
    (3 * loss.value).backward()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p, value in zip(twin.parameters(), watched.seen[1], strict=True):
            p.copy_(value)
    twin.zero_grad()
    twin_loss = F.cross_entropy(twin(x), y)
    (3 * twin_loss).backward()
    assert float(loss.value.detach()) == pytest.approx(float(twin_loss.detach()), rel=1e-6)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-6)


@pytest.mark.parametrize("inner", [AT(ATTACK), ALP(ATTACK), TRADES(ATTACK), MART(ATTACK)], ids=lambda d: d.name)
def test_weights_are_back_bit_for_bit(inner: Minimax[Any], make_cnn: MakeNet, make_images: MakeImages) -> None:
    model, x, y = make_cnn().train(), make_images(8), torch.arange(8)
    before = state(model)
    defense = AWP(inner, gamma=0.1)
    assert defense.name == f"{inner.name}-awp"
    assert defense.attack == inner.attack
    loss = defense.loss(model, x, y, generator=torch.Generator().manual_seed(0))
    for name, p in model.named_parameters():
        assert torch.equal(before[name], p), name
    # The batch-norms counted the second pass alone.
    passes = 1 if inner.name == "at" else 2
    assert model[1].num_batches_tracked == passes
    loss.value.backward()
    plain = copy.deepcopy(model)
    plain.zero_grad()
    plain.load_state_dict(before)
    inner.loss(plain, x, y, generator=torch.Generator().manual_seed(0)).value.backward()
    assert any(not torch.allclose(p.grad, q.grad) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def test_gamma_of_zero_is_the_inner_defence(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model, x, y = make_cnn().train(), make_images(8), torch.arange(8)
    twin = copy.deepcopy(model)
    inner = TRADES(ATTACK)
    a = AWP(inner, gamma=0.0).loss(model, x, y, generator=torch.Generator().manual_seed(0))
    b = inner.loss(twin, x, y, generator=torch.Generator().manual_seed(0))
    a.value.backward()
    b.value.backward()
    assert float(a.value.detach()) == float(b.value.detach())
    assert (a.clean_correct, a.robust_correct) == (b.clean_correct, b.robust_correct)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
    for (name, p), (_, q) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(p, q), name


def test_weights_and_statistics_are_back_after_an_exception(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model = make_cnn().train()
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        AWP(Watched(fails=True), gamma=0.5).loss(model, make_images(8), torch.arange(8))
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    assert model[1].momentum == 0.1


def test_it_sets_in_when_it_is_told_to() -> None:
    defense = AWP(TRADES(), gamma=0.005, warmup=0.05)
    assert defense.at(0.04) == TRADES()
    assert defense.at(0.05) == defense


def test_frozen_parameters_stay_out_of_it(make_cnn: MakeNet, make_images: MakeImages) -> None:
    model = make_cnn()
    model[0].weight.requires_grad_(False)
    watched = Watched()
    AWP(watched, gamma=0.1).loss(model, make_images(8), torch.arange(8)).value.backward()
    assert torch.equal(watched.seen[0][0], watched.seen[1][0])
    assert model[0].weight.grad is None
    assert model[7].weight.grad is not None


@pytest.mark.parametrize("inner", [FreeAT(), AWP(Standard())], ids=["free-at", "awp"])
def test_what_it_can_not_wrap_is_refused(inner: Any) -> None:
    with pytest.raises(InputError, match=r"expected a defence that makes its examples before its loss"):
        AWP(inner)


def test_gamma_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"gamma=-0\.1: expected a number of at least 0"):
        AWP(AT(), gamma=-0.1)


def test_a_single_step_is_watched_also_within() -> None:
    assert AWP(FastAT()).single_step
    assert not AWP(AT()).single_step

"""Training losses against arithmetic done by hand, and against the plainest formulation."""

import copy
import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD
from robustmaps.defenses import AT, Defense, Standard, count_correct
from robustmaps.engine.view import AttackEngine


@dataclass(frozen=True)
class Shift:
    """An attack that adds a constant, so that losses can be worked out on paper; it notes nothing and draws nothing."""

    eps: float = 0.5
    norm = "linf"
    name = "shift"

    def __call__(self, model: object, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return x + self.eps


def one_pixel_network() -> nn.Module:
    """Logits (0, a x) for one pixel x, with a = 2 log 3: 0 and log 3 at x = 1/2, 0 and 2 log 3 at x = 1."""
    head = nn.Linear(1, 2, bias=False)
    head.weight = nn.Parameter(torch.tensor([[0.0], [2 * math.log(3)]]))
    return nn.Sequential(nn.Flatten(), head)


X = torch.tensor([0.5, 0.0]).view(2, 1, 1, 1)


def test_standard_by_hand() -> None:
    # Probabilities of class 1: 3/4 at x = 1/2, and 1/2 at x = 0. Losses: log(4/3) for label 1, log 2 for label 0.
    loss = Standard().loss(one_pixel_network(), X, torch.tensor([1, 0]))
    assert float(loss.value.detach()) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert loss.clean_correct == 2  # of equal logits the first counts
    assert loss.robust_correct is None


def test_at_by_hand() -> None:
    # Moved by 1/2: probabilities of class 1 are 9/10 at x = 1 and 3/4 at x = 1/2; labels 1 and 0.
    model = one_pixel_network()
    loss = AT(Shift()).loss(model, X, torch.tensor([1, 0]))
    assert float(loss.value.detach()) == pytest.approx((math.log(10 / 9) + math.log(4)) / 2, rel=1e-5)
    assert loss.robust_correct == 1
    assert loss.clean_correct is None
    loss.value.backward()
    # d loss / d w1 = mean of (p1 - [y = 1]) x = ((9/10 - 1) 1 + (3/4) 1/2) / 2.
    gradient = model[1].weight.grad
    assert float(gradient[1, 0]) == pytest.approx((-0.1 + 0.375) / 2, rel=1e-5)
    assert float(gradient[0, 0]) == pytest.approx(-(-0.1 + 0.375) / 2, rel=1e-5)


@pytest.mark.parametrize("through_view", [False, True])
def test_at_is_cross_entropy_at_the_attacked_images(
    through_view: bool, make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model, x, y = make_cnn().train(), make_images(16), torch.arange(16) % 10
    twin = copy.deepcopy(model)
    attack = PGD(eps=0.1, steps=3)
    if through_view:
        with AttackEngine(model).view(x) as view:
            loss = AT(attack).loss(model, x, y, view=view, generator=torch.Generator().manual_seed(0))
    else:
        loss = AT(attack).loss(model, x, y, generator=torch.Generator().manual_seed(0))
    assert all(p.grad is None for p in model.parameters())
    loss.value.backward()

    twin.eval()
    x_adv = attack(twin, x, y, generator=torch.Generator().manual_seed(0))
    twin.train()
    logits = twin(x_adv)
    expected = F.cross_entropy(logits, y)
    expected.backward()
    assert float(loss.value.detach()) == pytest.approx(float(expected.detach()), abs=0.02 if through_view else 1e-6)
    if not through_view:
        assert loss.robust_correct == (logits.argmax(1) == y).sum()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-6)
        # The batch-norms saw the attacked images once, and the attack's own passes not at all.
        assert torch.allclose(model[1].running_mean, twin[1].running_mean, atol=1e-6)
        assert model[1].num_batches_tracked == 1


def test_the_network_is_trained_in_the_mode_it_is_in(make_images: Callable[..., Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    x, y = make_images(8), torch.arange(8)
    values = {float(AT(FGSM(eps=0.1)).loss(model, x, y).value.detach()) for _ in range(3)}
    assert len(values) == 3
    assert model.training
    assert model[1].training


@pytest.mark.parametrize("defense", [Standard(), AT()])
def test_defences_are_frozen_values(defense: Defense) -> None:
    assert isinstance(defense, Defense)
    assert defense == type(defense)()
    with pytest.raises(FrozenInstanceError):
        defense.attack = FGSM()  # type: ignore[misc]


def test_the_default_attack_is_the_published_one() -> None:
    attack = AT().attack
    assert isinstance(attack, PGD)
    assert (attack.norm, attack.eps, attack.steps, attack.start) == ("linf", 8 / 255, 10, "uniform")
    assert attack.step_length == pytest.approx(2 / 255)
    assert Standard().attack is None


def test_correct_rows_are_counted_without_leaving_the_device() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    count = count_correct(logits, torch.tensor([1, 1, 1]))
    assert isinstance(count, Tensor)
    assert int(count) == 2
    assert not count.requires_grad

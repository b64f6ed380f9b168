"""LIET: what a single step starts from, and the loss against arithmetic by hand."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import InputError, TrainOptions, data, fit
from robustmaps.attacks import FGSM
from robustmaps.defenses import LIET, at, scaled, validation_attack
from robustmaps.engine.random import stream

X = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def linear() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("eps", "reach"), [(8 / 255, 1), (0.1, 3), (1.0, 3)])
def test_images_are_in_reach(norm: str, eps: float, reach: int) -> None:
    before, after = LIET(FGSM(norm, eps=eps)).inner(linear(), X, Y, stream(0, "a"))
    for images in (before, after):
        assert images.shape == X.shape
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
    large = eps > (8 / 255 if norm == "linf" else 0.5)
    order = math.inf if norm == "linf" else 2
    distance = (after - X).flatten(1).norm(order, dim=1).max()
    assert float(distance) <= (reach if large else 1) * eps * (1 + 1e-5) * (1 if norm == "linf" else 2)
    # The step raises the loss of nearly every image.
    network = linear()
    with torch.no_grad():
        raised = F.cross_entropy(network(after), Y) - F.cross_entropy(network(before), Y)
    assert float(raised) > 0


def test_the_start_is_a_masked_perturbation_of_a_grey_image() -> None:
    network, eps = linear(), 8 / 255
    weights = network[1].weight.detach()
    grey = torch.full((3, 1, 6, 6), 0.5)
    targets = F.one_hot(torch.arange(3), 3) * (1 - 0.6 - 0.3) + 0.3
    slope = (network(grey).softmax(1).detach() - targets) @ weights
    telling = eps * slope.sign().reshape(3, 1, 6, 6)[Y]
    before, _ = LIET(FGSM(eps=eps)).inner(network, X.clamp(0.1, 0.9), Y, stream(3, "a"))
    start = before - X.clamp(0.1, 0.9)
    same, opposite = ((start - side * telling).abs() < 1e-6 for side in (1, -1))
    kept = max(float(same.float().mean()), float(opposite.float().mean()))
    assert 0.45 < kept < 0.95, "between a tenth and a half is noise"
    assert float(start.abs().max()) <= eps * (1 + 1e-5)


def test_the_loss_by_hand() -> None:
    network = linear()
    defense = LIET(FGSM(eps=0.02), beta=7.0, smoothing=0.3)
    examples = (X, (X + 0.02).clamp(0, 1))
    found = at(defense, 0.25).outer(network, X, examples, Y)
    p, q = (network(images).softmax(1) for images in examples)
    m = (p + q) / 2
    js = ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)) / 2
    targets = torch.full((40, 3), 0.15)
    targets[torch.arange(40), Y] = 0.7
    expected = -(targets * q.log()).sum(1).mean() + 0.25 * 7.0 * js.mean()
    torch.testing.assert_close(found.value, expected)
    assert int(found.robust_correct) == int((q.argmax(1) == Y).sum())
    # Targets from outside, such as mixed ones, replace the smoothed labels.
    given = at(defense, 0.0).outer(network, X, examples, Y, targets=F.one_hot(Y, 3).float())
    torch.testing.assert_close(given.value, F.cross_entropy(network(examples[1]), Y))


def test_settings_follow_the_budget_and_the_progress() -> None:
    small, large = LIET(), LIET(FGSM(eps=16 / 255))
    assert (small.beta, small.smoothing) == (100, 0.6)
    assert (large.beta, large.smoothing) == (20, 0.4)
    assert LIET(FGSM("l2", eps=0.5)).beta == 100
    assert small.progress == 1
    assert at(small, 0.5).progress == 0.5
    assert scaled(at(small, 0.5), 0.5).attack.eps == small.attack.eps / 2
    assert validation_attack(small.attack).name == "pgd"
    assert repr(at(small, 0.5)) == repr(small)


@pytest.mark.parametrize(("values", "message"), [({"beta": -1}, "beta=-1"), ({"smoothing": 1.0}, r"smoothing=1\.0")])
def test_values_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LIET(**values)


def test_masked_classes_and_rare_labels() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = linear()

        def forward(self, x: Tensor) -> Tensor:
            return F.pad(self.inside(x), (0, 2), value=-float("inf"))

    network, y = Masked(), torch.full((40,), 2)
    loss = LIET(FGSM(eps=0.1)).loss(network, X, y, generator=stream(0, "a"))
    loss.value.backward()
    assert loss.value.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.slow
def test_it_trains_without_collapse(make_cnn: Callable[..., nn.Module]) -> None:
    """A plain single step does not collapse here either: this shows that it trains, and no more."""
    digits = data.load("digits")
    options = TrainOptions(epochs=15, batch_size=64, lr=0.2, schedule="one-cycle", device="cpu", precision="fp32")
    history = fit(make_cnn(), digits, LIET(FGSM(eps=0.15)), options).history
    assert not any(record["catastrophic_overfitting"] for record in history)
    assert history[-1]["validation_robust_accuracy"] > 0.5

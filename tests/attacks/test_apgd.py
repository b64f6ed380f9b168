import pytest
import torch
import torchattacks
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from robustmaps.attacks import APGD, norms, project
from robustmaps.attacks._losses import dlr, targeted_dlr
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from tests.helpers.attack_oracles import PEER_NORMS, TwoPlanes, broken, images, lowest_value


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("norm", "eps", "slack"), [("linf", 0.02, 1e-5), ("l1", 0.3, 1e-4)])
@pytest.mark.parametrize("loss", ["ce", "dlr-t"])
@pytest.mark.filterwarnings("ignore:apgd-t")
def test_apgd_reaches_the_optimum_of_a_linear_network_with_the_box_in_the_way(norm, eps, slack, loss):
    network, x = TwoPlanes(36), images(12)
    y = (network.value(x) < 0).long()
    optimum = lowest_value(network, x, norm, eps)
    x_adv = APGD(norm, eps, loss=loss)(network, x, y, generator=generator())
    reached = network.value(x_adv) * network.value(x).sign()
    still = optimum > 0.01  # a broken sample is left at once
    assert still.sum() >= 4
    clean = network.value(x).abs()
    assert torch.all((reached - optimum)[still] <= slack * (clean - optimum)[still] + 1e-6)
    assert torch.equal(broken(network, x_adv, y), optimum < 0)


def test_apgd_reaches_the_optimum_in_l2_where_the_box_is_far():
    network, x = TwoPlanes(36), images(12, low=0.3, high=0.7)
    y = (network.value(x) < 0).long()
    eps = 0.5 * float(network.value(x).abs().median() / network.weight.norm())
    x_adv = APGD("l2", eps)(network, x, y, generator=generator())
    reached = network.value(x_adv) * network.value(x).sign()
    optimum = network.value(x).abs() - eps * network.weight.norm().detach()
    assert torch.allclose(reached[optimum > 0], optimum[optimum > 0], atol=1e-4)
    assert torch.equal(broken(network, x_adv, y), optimum < 0)


@given(st.integers(0, 10_000), st.floats(0.01, 8), st.floats(0.01, 3))
@example(302, 0.01, 0.015625)
@settings(max_examples=60, deadline=None)
def test_l1_projection_is_the_nearest_point_of_ball_and_box(seed, eps, scale):
    random = generator(seed)
    clean = torch.rand(3, 1, 4, 4, generator=random)
    clean[0] = clean[0].round()  # on the box's corner
    x = clean + scale * torch.randn(3, 1, 4, 4, generator=random)
    projected = project(x, clean, eps, "l1")
    assert projected.min() >= 0
    assert projected.max() <= 1
    # Each of the 16 pixels is rounded once more when the perturbation is added to the image.
    assert torch.all(norms(projected - clean, "l1") <= eps * (1 + 1e-5) + 16 * 2**-24)
    # Reference: the threshold by bisection, in double precision.
    size, room = (x - clean).abs().double(), torch.where(x > clean, 1 - clean, clean).double()
    low, high = torch.zeros(3, 1, 1, 1).double(), size.amax((1, 2, 3), keepdim=True)
    inside = torch.minimum(size, room).sum((1, 2, 3), keepdim=True) <= eps
    for _ in range(100):
        middle = (low + high) / 2
        over = torch.minimum((size - middle).clamp(min=0), room).sum((1, 2, 3), keepdim=True) > eps
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    expected = torch.minimum((size - torch.where(inside, 0.0, high)).clamp(min=0), room)
    assert torch.allclose((projected - clean).abs().double(), expected, atol=2e-6)


def test_losses_by_hand():
    logits, y = torch.tensor([[4.0, 1.0, 3.0, 0.0]]), torch.tensor([0])
    assert dlr(logits, y).item() == pytest.approx(-(4 - 3) / (4 - 1))
    assert targeted_dlr(logits, y, torch.tensor([1])).item() == pytest.approx(-(4 - 1) / (4 - (1 + 0) / 2))
    assert targeted_dlr(logits[:, :3], y, torch.tensor([1])).item() == pytest.approx(-(4 - 1) / (4 - 1))
    assert dlr(logits[:, :2], y).item() == pytest.approx(-3)


@pytest.mark.parametrize(
    ("loss", "classes", "name"), [("dlr", 2, "apgd-dlr"), ("dlr-t", 2, "apgd-t"), ("dlr-t", 3, "apgd-t")]
)
def test_undefined_losses_fall_back_with_a_warning(loss, classes, name, make_cnn, make_images):
    network, x = make_cnn(classes=classes), make_images(6)
    y = network.eval()(x).argmax(1)
    with pytest.warns(UserWarning, match=f"{name}.*has {classes}"):
        x_adv = APGD(eps=0.3, loss=loss, steps=10)(network, x, y, generator=generator())
    assert broken(network, x_adv, y).any()


@pytest.mark.parametrize("attack", [APGD("linf", 0.1), APGD("l2", 0.8), APGD("l1", 4.0), APGD(eps=0.1, loss="dlr-t")])
def test_budget_range_and_independence_of_the_other_samples(attack, robust_network, digits_test):
    x, y = digits_test[0][:40], digits_test[1][:40]
    x_adv = attack(robust_network, x, y, generator=generator())
    assert torch.all(norms(x_adv - x, attack.norm) <= attack.eps * (1 + 1e-5))
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    wrong = (y + 1) % 10
    mixed = torch.where(torch.arange(40) % 2 == 0, y, wrong)
    verdicts = broken(robust_network, x_adv, y)[::2]
    x_mixed = attack(robust_network, x, mixed, generator=generator())
    assert torch.equal(verdicts, broken(robust_network, x_mixed, y)[::2])
    # What is wrong from the start comes back as it was.
    lost = robust_network(x).argmax(1) != mixed
    assert torch.equal(x_mixed[lost], x[lost])


def test_small_batches_give_the_same_verdicts_and_watchers_hear_of_every_step(robust_network, digits_test):
    x, y = digits_test[0][:30], digits_test[1][:30]
    heard: list[Progress] = []
    attack = APGD(eps=0.12, loss="dlr-t", steps=30)
    whole = attack(robust_network, x, y, generator=generator(), watcher=heard.append)
    parts = APGD(eps=0.12, loss="dlr-t", steps=30, batch_size=17)(robust_network, x, y, generator=generator())
    assert torch.equal(broken(robust_network, whole, y), broken(robust_network, parts, y))
    done = [progress.done for progress in heard]
    assert done == sorted(done)
    assert heard[-1].done == heard[-1].total == int((robust_network(x).argmax(1) == y).sum()) * 9 * 30


def test_averaged_gradients_see_through_noise():
    class Noisy(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x + 0.3 * torch.randn_like(x))

    network, x = TwoPlanes(36), images(12)
    y = (network.value(x) < 0).long()
    reached = {}
    for eot in (1, 20):
        torch.manual_seed(0)
        x_adv = APGD(eps=0.01, steps=20, eot=eot)(Noisy(network), x, y, generator=generator())
        reached[eot] = broken(network, x_adv, y).float().mean()
    assert reached[20] >= reached[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norm": "l3"}, "unknown norm"),
        ({"loss": "hinge"}, "unknown loss"),
        ({"eps": 8.0}, "8/255"),
        ({"steps": 0}, "steps=0"),
        ({"targets": 0}, "targets=0"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InputError, match=message):
        APGD(**values)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.9)])
def test_as_strong_as_torchattacks(norm, eps, robust_network, digits_test):
    x, y = digits_test[0][:100], digits_test[1][:100]
    ours = APGD(norm, eps)(robust_network, x, y, generator=generator())
    peer = torchattacks.APGD(robust_network, norm=PEER_NORMS[norm], eps=eps, steps=100)
    difference = broken(robust_network, ours, y).sum() - broken(robust_network, peer(x, y), y).sum()
    # Another seed moves either by up to two of these images.
    assert abs(difference) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.9)])
def test_targeted_as_strong_as_torchattacks(norm, eps, robust_network, digits_test):
    x, y = digits_test[0][:400], digits_test[1][:400]
    difference = 0.0
    for seed in range(3):
        ours = APGD(norm, eps, loss="dlr-t")(robust_network, x, y, generator=torch.Generator().manual_seed(seed))
        peer = torchattacks.APGDT(robust_network, norm=PEER_NORMS[norm], eps=eps, steps=100, n_classes=10, seed=seed)
        difference += float(broken(robust_network, ours, y).sum() - broken(robust_network, peer(x, y), y).sum()) / 3
    # One seed moves either by up to five of these images; over three the means differ by less than one.
    assert abs(difference) <= 4

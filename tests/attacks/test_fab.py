import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.attacks import FAB, norms
from robustmaps.attacks._halfspace import to_hyperplane
from robustmaps.engine.errors import InputError
from tests.helpers.attack_oracles import PEER_NORMS, TwoPlanes, broken, images, shortest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("low", [0.0, 0.3])  # with the box in the way, and without
def test_finds_the_smallest_perturbation_of_a_linear_network(norm, targeted, low):
    network, x = TwoPlanes(36), images(10, low=low, high=1 - low)
    y = (network.value(x) < 0).long()
    x_adv = FAB(norm, 0.1, targeted=targeted, minimal=True, steps=60)(network, x, y, generator=generator())
    assert broken(network, x_adv, y).all()
    found, best = norms(x_adv - x, norm), shortest(network, x, norm)
    assert torch.all(found >= best * (1 - 1e-4))
    assert torch.all(found <= best * 1.02 + 1e-6)


@given(st.integers(0, 10_000), st.sampled_from(["linf", "l2", "l1"]))
@settings(max_examples=40, deadline=None)
def test_projection_onto_a_hyperplane_is_the_shortest_way(seed, norm):
    network, x = TwoPlanes(36, seed=seed), images(2, seed=seed + 1)
    normal = network.weight.view(1, 1, 6, 6).expand_as(x)
    delta = to_hyperplane(x, normal, -network.value(x), norm)
    assert torch.all((x + delta >= -1e-6) & (x + delta <= 1 + 1e-6))
    assert torch.allclose(network.value(x + delta), torch.zeros(2), atol=1e-5)
    assert torch.allclose(norms(delta, norm), shortest(network, x, norm), rtol=1e-3, atol=1e-5)


def test_a_hyperplane_out_of_reach_leads_to_the_corner():
    x = torch.full((1, 1, 2, 2), 0.5)
    for norm in ("linf", "l2", "l1"):
        delta = to_hyperplane(x, torch.ones_like(x), torch.tensor([5.0]), norm)
        assert torch.equal(x + delta, torch.ones_like(x))


def test_only_what_lies_within_eps_comes_back(robust_network, digits_test):
    x, y = digits_test[0][:40], digits_test[1][:40]
    eps = 0.12
    right = ~broken(robust_network, x, y)
    minimal = FAB(eps=eps, targeted=True, minimal=True)(robust_network, x, y, generator=generator())
    x_adv = FAB(eps=eps, targeted=True)(robust_network, x, y, generator=generator())
    assert torch.all(norms(x_adv - x, "linf") <= eps)
    found = broken(robust_network, x_adv, y) & right
    assert torch.equal(x_adv[~found], x[~found])
    assert 0 < found.sum() < right.sum()
    assert torch.equal(found, (norms(minimal - x, "linf") <= eps) & broken(robust_network, minimal, y) & right)


def test_restarts_never_lengthen(robust_network, digits_test):
    x, y = digits_test[0][:12], digits_test[1][:12]
    one, three = (
        FAB(eps=0.2, minimal=True, steps=10, restarts=restarts)(robust_network, x, y, generator=generator())
        for restarts in (1, 3)
    )
    assert torch.all(norms(three - x, "linf") <= norms(one - x, "linf") + 1e-6)
    assert norms(three - x, "linf").sum() < norms(one - x, "linf").sum()


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes, make_cnn, make_images):
    network, x = make_cnn(classes=classes).eval(), make_images(6)
    y = network(x).argmax(1)
    for targeted in (True, False):
        x_adv = FAB(eps=0.5, targeted=targeted, minimal=True)(network, x, y, generator=generator())
        assert broken(network, x_adv, y).all()


def test_bad_values():
    for values, message in (({"norm": "l3"}, "unknown norm"), ({"eta": 0.5}, "eta=0.5"), ({"steps": 0}, "steps=0")):
        with pytest.raises(InputError, match=message):
            FAB(**values)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_perturbations_are_as_small_as_those_of_torchattacks(norm, robust_network, digits_test):
    x, y = digits_test[0][:40], digits_test[1][:40]
    right = ~broken(robust_network, x, y)
    x, y = x[right], y[right]
    ours = FAB(norm, 0.1, minimal=True, steps=30)(robust_network, x, y, generator=generator())
    peer = torchattacks.FAB(robust_network, norm=PEER_NORMS[norm], eps=10.0, steps=30, n_classes=10)
    theirs = peer.attack_single_run(x, y)
    assert broken(robust_network, ours, y).all()
    ratio = norms(ours - x, norm) / norms(theirs - x, norm)
    assert 0.95 < ratio.median() < 1.03

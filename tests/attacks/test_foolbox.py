import logging
import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from robustmaps import evaluate
from robustmaps.attacks import Attack, Foolbox, norms
from robustmaps.attacks._foolbox import METHODS
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackEngine
from tests.helpers.attack_oracles import TwoPlanes, broken, images, shortest

with warnings.catch_warnings():  # it uses a name that SciPy gave up
    warnings.simplefilter("ignore")
    import foolbox

EVERY = [(name, norm) for name, method in METHODS.items() for norm in method.classes]
QUICK = [(name, norm) for name, norm in EVERY if name != "brendel-bethge"]
BOUNDARY_NORMS = ["linf", "l2", "l1"]
# The published 9 x 10,000 steps are for overnight.
STEPS = {"cw": 60, "ead": 60}


def make(name: str, norm: str, eps: float, **settings) -> Foolbox:
    return Foolbox(name, norm, eps, steps=STEPS.get(name), **settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(count: int = 8, *, low: float = 0.0) -> tuple[TwoPlanes, Tensor, Tensor]:
    network, x = TwoPlanes(36), images(count, low=low, high=1 - low)
    return network, x, (network.value(x) < 0).long()


class Brightness(nn.Module):
    """Class 1 above a mean brightness, where noise with its mean of 0.5 never gets; class 0 below."""

    def __init__(self, threshold: float = 0.9, *, steep: bool = True) -> None:
        super().__init__()
        self.threshold, self.steep = threshold, steep

    def forward(self, x: Tensor) -> Tensor:
        value = x.mean((1, 2, 3)) - self.threshold
        value = value if self.steep else value.sign() + 0 * value
        return torch.stack([-value, value], dim=1)


@pytest.fixture
def starts(monkeypatch):
    """Brendel & Bethge's attack without numba: it gives back what it was given to start from."""
    given = []

    class Stay:
        def run(self, model, inputs, criterion, *, starting_points):
            given.append(starting_points)
            return starting_points

    monkeypatch.setattr(foolbox.attacks, "L2BrendelBethgeAttack", Stay)
    return given


@pytest.mark.parametrize(
    ("name", "norm", "margin"),
    [("deepfool", "linf", 1.03), ("deepfool", "l2", 1.03), ("cw", "l2", 1.05), ("ead", "l1", 1.3)],
)
def test_finds_nearly_the_smallest_perturbation_of_a_linear_network(name, norm, margin):
    network, x, y = linear(low=0.3)
    x_adv = make(name, norm, 1.0, minimal=True)(network, x, y, generator=generator())
    found, best = norms(x_adv - x, norm), shortest(network, x, norm)
    assert broken(network, x_adv, y).all()
    assert torch.all(found >= best * (1 - 1e-4))
    assert torch.all(found <= best * margin + 2e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiling foolbox's solvers takes a minute or two
@pytest.mark.parametrize("norm", BOUNDARY_NORMS)
def test_brendel_bethge(norm, robust_network, digits_test):
    network, x, y = linear()
    attack = Foolbox("brendel-bethge", norm, 1.0, minimal=True)
    x_adv = attack(network, x, y, generator=generator())
    found, best = norms(x_adv - x, norm), shortest(network, x, norm)
    assert broken(network, x_adv, y).all()
    assert torch.all(found >= best * (1 - 1e-4))
    # Not all: on a plane its last steps may end a rounding error short of the boundary, and then it gives an early one.
    assert (found / best).median() <= 1.03
    assert torch.equal(attack(network, x, y, generator=generator()), x_adv)

    x, y = digits_test[0][:20], digits_test[1][:20]
    eps = {"linf": 0.2, "l2": 1.0, "l1": 5.0}[norm]
    result = evaluate(robust_network, x, y, Foolbox("brendel-bethge", norm, eps, steps=100))
    assert result.verdicts.count("brendel-bethge") > 3


@pytest.mark.parametrize(("name", "norm"), QUICK)
def test_breaks_what_is_easy_within_the_budget_and_leaves_the_rest(name, norm):
    network, x, y = linear()
    best = shortest(network, x, norm)
    eps = float(best.median())
    x_adv = make(name, norm, eps)(network, x, y, generator=generator())
    fallen = broken(network, x_adv, y)
    assert not fallen[best > eps * (1 + 1e-4)].any()
    assert fallen[best < eps / 8].all()
    assert torch.equal(x_adv[~fallen], x[~fallen])
    assert torch.all(norms(x_adv - x, norm) <= eps * (1 + 1e-5))
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    # A larger budget breaks everything, also for the two attacks that are weak with a tight one.
    assert broken(network, make(name, norm, 1.0 if norm == "linf" else 30.0)(network, x, y), y).all()


def test_what_was_found_too_far_away_counts_if_it_holds_within_the_budget():
    network, x, y = linear(1, low=0.3)
    best = float(shortest(network, x, "l2"))
    found = norms(Foolbox("deepfool", "l2", best, minimal=True)(network, x, y) - x, "l2")
    x_adv = Foolbox("deepfool", "l2", best * 1.001)(network, x, y)
    assert found > best * 1.002
    assert broken(network, x_adv, y).all()
    assert norms(x_adv - x, "l2") <= best * 1.001 * (1 + 1e-5)
    assert torch.equal(Foolbox("deepfool", "l2", best * 0.999)(network, x, y), x)


@pytest.mark.parametrize(("name", "norm"), [("cw", "l2"), ("ead", "l1")])
def test_the_black_image_that_stands_for_nothing_found_is_not_taken_for_a_finding(name, norm):
    network, x = Brightness(0.3), 0.8 + 0.2 * images(3)
    y = torch.ones(3, dtype=torch.int64)
    assert broken(network, torch.zeros_like(x), y).all()
    assert torch.equal(Foolbox(name, norm, 1.0, steps=1, minimal=True)(network, x, y), x)


def test_misclassified_images_come_back_as_they_are():
    network, x, y = linear()
    y[::2] = 1 - y[::2]
    x_adv = Foolbox("deepfool", "l2", 5.0)(network, x, y)
    assert torch.equal(x_adv[::2], x[::2])
    assert broken(network, x_adv, y).all()
    assert torch.equal(Foolbox("deepfool", "l2", 5.0)(network, x_adv, y), x_adv)


@pytest.mark.parametrize("seeded", [True, False])
def test_draws_come_from_the_generator_and_global_state_is_put_back(seeded):
    network, x, y = linear()
    attack = Foolbox("pgd-l1", "l1", 8.0, steps=3)
    if seeded:
        state = torch.get_rng_state()
        first, again, other = (attack(network, x, y, generator=generator(seed)) for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    else:
        with torch.random.fork_rng([]):
            results = []
            for _ in range(2):
                torch.manual_seed(3)
                results.append(attack(network, x, y))
        assert torch.equal(*results)


@pytest.mark.parametrize(("name", "norm"), QUICK)
def test_leaves_the_network_the_images_and_logging_as_they_were(name, norm, make_cnn, make_images):
    network, x = make_cnn().train(), make_images(4)
    network[0].weight.requires_grad_(False)
    y, before, handlers = network.eval()(x).argmax(1), x.clone(), list(logging.root.handlers)
    network.train()
    network[1].eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    Foolbox(name, norm, 0.5, steps=2)(network, x, y)
    assert torch.equal(x, before)
    assert [module.training for module in network] == [index != 1 for index in range(len(network))]
    assert [parameter.requires_grad for parameter in network.parameters()][:2] == [False, True]
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert logging.root.handlers == handlers


@pytest.mark.parametrize(("name", "norm"), QUICK)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_on_a_view_where_the_caller_wants_no_gradients(name, norm, mode, make_cnn, make_images):
    network = make_cnn().eval()
    with mode():
        x = make_images(4)
        y = network(x).argmax(1)
        with AttackEngine(network).view(x) as view:
            x_adv = Foolbox(name, norm, 1.0 if norm == "linf" else 20.0, steps=20)(view, x, y, generator=generator())
    assert broken(network, x_adv, y).any()


def test_evaluate(robust_network, digits_test):
    x, y = digits_test[0][:40], digits_test[1][:40]
    result = evaluate(robust_network, x, y, [make("slide", "l1", 3.0), make("ead", "l1", 3.0)])
    assert result.verdicts.count("slide") > 0
    assert result.verdicts.count("ead") > 0
    assert result.warnings == ()
    assert all(distance is None or distance <= 3.0 + 1e-4 for distance in result.distances)


def test_gradients_that_are_not_numbers_cost_only_their_own_sample():
    class Sharp(TwoPlanes):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            bad = x[:, 0, 0, 0] < 0.5
            zero = torch.zeros_like(logits)
            zero[bad] = (0 * x[bad, :, 0, 0]).square().sqrt()
            return logits + zero

    network, (_, x, y) = Sharp(36), linear()
    x_adv = make("cw", "l2", 10.0)(network, x, y)
    good = x[:, 0, 0, 0] >= 0.5
    assert 0 < good.sum() < len(x)
    assert broken(network, x_adv, y)[good].all()


def test_brendel_bethge_starts_from_noise_or_else_along_the_gradient(starts):
    x = images(5) * 0.5
    y = torch.zeros(5, dtype=torch.int64)
    for threshold in (0.45, 0.9):
        x_adv = Foolbox("brendel-bethge", "l2", 1.0, minimal=True)(Brightness(threshold), x, y, generator=generator())
        assert broken(Brightness(threshold), x_adv, y).all()
        assert torch.equal(starts.pop(), x_adv)


def test_brendel_bethge_without_a_start_says_so(starts):
    x = torch.cat([images(3), 0.92 + 0.08 * images(2)])
    network = Brightness(steep=False)
    y = network(x).argmax(1)
    assert y.tolist() == [0, 0, 0, 1, 1]
    attack = Foolbox("brendel-bethge", "l2", 1.0, minimal=True)
    with pytest.warns(UserWarning, match="to start from for 3 of 5 images; they are returned unchanged") as caught:
        x_adv = attack(network, x, y)
    assert caught[0].filename == __file__
    assert broken(network, x_adv, y).tolist() == [False] * 3 + [True] * 2
    assert torch.equal(x_adv[:3], x[:3])
    with pytest.warns(UserWarning, match="for 3 of 3 images"):
        assert torch.equal(attack(network, x[:3], y[:3]), x[:3])


def test_missing_packages(monkeypatch):
    network, x, y = linear(2)
    monkeypatch.setattr(foolbox.attacks.brendel_bethge, "NUMBA_IMPORT_ERROR", ImportError("no numba"))
    with pytest.raises(InputError, match=r"'brendel-bethge' needs .*numba.*; pip install 'robustmaps\[foolbox\]'"):
        Foolbox("brendel-bethge", "l2", 1.0)(network, x, y)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(InputError, match=r"needs the package 'foolbox'; pip install 'robustmaps\[foolbox\]'"):
        Foolbox("cw", "l2", 1.0)(network, x, y)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_is_an_attack(name, norm):
    attack = Foolbox(name, norm, 0.5)
    assert isinstance(attack, Attack)
    assert attack.name == name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("carlini", "l2", 1.0), "unknown attack 'carlini'"),
        (("deepfol", "l2", 1.0), "did you mean 'deepfool'"),
        (("cw", "l3", 1.0), "unknown norm 'l3'"),
        (("cw", "linf", 0.1), "norm='linf': cw needs norm='l2'"),
        (("deepfool", "l1", 0.1), "deepfool needs norm='linf' or 'l2'"),
        (("deepfool", "linf", 8.0), "did you mean 8/255"),
        (("cw", "l2", 1.0, 0), "steps=0"),
        (("slide", "l1", 1.0, None, True), "minimal=True: slide works at a fixed eps"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(InputError, match=message):
        Foolbox(*values)

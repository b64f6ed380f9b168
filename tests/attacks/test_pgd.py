"""PGD and FGSM: what must always hold, closed forms on linear networks, and foolbox's attacks beside ours."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, Attack
from robustmaps.attacks._geometry import norms, project, steepest, uniform_in_ball
from robustmaps.attacks._losses import LOSSES
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackEngine, plain_view

EPS = 0.15
ROUNDING = 1e-6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(channels: int = 1, classes: int = 4, size: int = 5) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * (size - 2) ** 2, classes),
        )


def linear(weight: Tensor) -> nn.Module:
    """Logits that are linear in the pixels; weight (K, C * H * W)."""
    head = nn.Linear(weight.shape[1], len(weight), bias=False)
    head.weight = nn.Parameter(weight.clone())
    return nn.Sequential(nn.Flatten(), head)


@st.composite
def attacks(draw: st.DrawFn) -> Attack:
    norm = draw(st.sampled_from(["linf", "l2"]))
    eps = draw(st.floats(1e-3, 1.0 if norm == "linf" else 5.0))
    if draw(st.integers(0, 5)) == 0:
        return FGSM(norm=norm, eps=eps)
    start = draw(st.sampled_from(["uniform", "normal", "none"]))
    return PGD(
        norm=norm,
        eps=eps,
        steps=draw(st.integers(1, 3)),
        step_size=draw(st.none() | st.floats(1e-3, 3.0)),
        restarts=1 if start == "none" else draw(st.integers(1, 3)),
        loss=draw(st.sampled_from(["ce", "margin"] if start == "none" else ["ce", "margin", "kl"])),
        start=start,
        early_stop=draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None)
@given(attack=attacks(), channels=st.sampled_from([1, 3]), count=st.integers(1, 5), seed=st.integers(0, 99))
def test_an_attack_stays_inside_and_repeats_itself(attack: Attack, channels: int, count: int, seed: int) -> None:
    model = network(channels)
    # Pixels at and near both ends of the range, where clipping happens.
    x = (torch.rand(count, channels, 5, 5, generator=seeded(seed)) * 1.4 - 0.2).clamp(0, 1)
    y = torch.arange(count) % 4
    before = x.clone()
    x_adv = attack(model, x, y, generator=seeded(seed))
    assert x_adv.shape == x.shape
    assert x_adv.dtype == torch.float32
    assert not x_adv.requires_grad
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (norms(x_adv - x, attack.norm) <= attack.eps + ROUNDING).all()
    assert torch.equal(x, before)
    assert x_adv.data_ptr() != x.data_ptr()
    state = torch.get_rng_state()
    assert torch.equal(x_adv, attack(model, x, y, generator=seeded(seed)))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("make", [PGD, FGSM])
def test_both_fulfil_the_protocol(make: Callable[[], Attack]) -> None:
    assert isinstance(make(), Attack)
    assert (make().norm, make().eps) == ("linf", 8 / 255)


# Closed forms: of two classes with linear logits, the loss rises along the difference of the weights and nowhere else.

WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 0.0], [-1.0, 1.0, 2.0, 0.0]])
TOWARDS_1 = WEIGHT[1] - WEIGHT[0]


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("early_stop", [False, True])
def test_linf_reaches_the_optimum_of_a_linear_network(loss: Any, early_stop: bool) -> None:
    x = torch.tensor([0.5, 0.95, 0.02, 0.3]).view(1, 1, 2, 2)
    y = torch.tensor([1])  # so the optimum goes against the difference; this budget does not suffice to break it
    optimum = (x.flatten() - 0.1 * TOWARDS_1.sign()).clamp(0, 1)
    attack = PGD(eps=0.1, steps=5, step_size=0.1, loss=loss, start="none", early_stop=early_stop)
    assert torch.allclose(attack(linear(WEIGHT), x, y).flatten(), optimum)
    # The last pixel has no weight, and a random start may leave it anywhere; the others end where they must.
    x_adv = PGD(eps=0.1, steps=5, step_size=0.1, loss=loss)(linear(WEIGHT), x, y, generator=seeded(0)).flatten()
    assert torch.allclose(x_adv[:3], optimum[:3])


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_l2_reaches_the_optimum_of_a_linear_network(loss: Any) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    x_adv = PGD(norm="l2", eps=0.2, steps=30, step_size=0.1, loss=loss)(linear(WEIGHT), x, y, generator=seeded(0))
    assert torch.allclose((x_adv - x).flatten(), 0.2 * TOWARDS_1 / TOWARDS_1.norm(), atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_one_step(norm: Any) -> None:
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    step = TOWARDS_1.sign() if norm == "linf" else TOWARDS_1 / TOWARDS_1.norm()
    x_adv = FGSM(norm=norm, eps=0.1)(linear(WEIGHT), x, y)
    assert torch.allclose((x_adv - x).flatten(), 0.1 * step, atol=1e-6)


def test_kl_moves_away_from_the_clean_prediction_whatever_the_label() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    moved = {
        label: PGD(eps=0.1, steps=5, step_size=0.1, loss="kl", start="normal")(
            linear(WEIGHT), x, torch.tensor([label]), generator=seeded(3)
        )
        for label in (0, 1)
    }
    assert torch.equal(moved[0], moved[1])
    delta = (moved[0] - x).flatten()[:3]
    assert torch.allclose(delta.abs(), torch.full((3,), 0.1))
    assert abs(float(delta.sign() @ TOWARDS_1[:3].sign())) == 3


# Losses by hand.


def loss_value(name: str, logits: list[float], clean: list[float] | None = None, label: int = 0) -> float:
    model = linear(torch.tensor(clean or [0.0] * len(logits))[:, None])
    x, y = torch.ones(1, 1, 1, 1), torch.tensor([label])
    with plain_view(model) as view, torch.no_grad():
        target = LOSSES[name].target(view, x, y)
    return float(LOSSES[name].value(torch.tensor([logits]), target))


def test_losses_by_hand() -> None:
    log = math.log
    # Softmax of (log 1, log 2, log 5) is (1, 2, 5) / 8.
    assert loss_value("ce", [log(1), log(2), log(5)], label=1) == pytest.approx(log(4))
    assert loss_value("margin", [1.0, 4.0, -2.0], label=0) == 3.0
    assert loss_value("margin", [1.0, 4.0, -2.0], label=1) == -3.0
    # KL((1/2, 1/4, 1/4) || (1/8, 1/4, 5/8)) = 1/2 log 4 + 0 + 1/4 log(2/5).
    expected = 0.5 * log(4) + 0.25 * log(2 / 5)
    assert loss_value("kl", [log(1), log(2), log(5)], clean=[log(2), log(1), log(1)]) == pytest.approx(expected)
    assert loss_value("kl", [0.3, 0.4, 0.5], clean=[0.3, 0.4, 0.5]) == pytest.approx(0, abs=1e-6)


# The geometry behind the steps.


def test_the_l2_start_is_uniform_in_the_ball() -> None:
    """The share of the ball within radius r is (r / eps)^d, so that (radius / eps)^d is uniform on [0, 1]."""
    delta = uniform_in_ball(torch.empty(4000, 1, 2, 2), 0.5, "l2", seeded(0))
    share = (norms(delta, "l2") / 0.5) ** 4
    distance = (share.sort().values - (torch.arange(4000) + 0.5) / 4000).abs().max()
    assert distance < 1.63 / math.sqrt(4000)  # Kolmogorov-Smirnov at 1 %
    directions = delta.flatten(1) / norms(delta, "l2")[:, None]
    assert directions.mean(0).abs().max() < 4 / math.sqrt(4 * 4000)


def test_the_linf_start_is_uniform_in_the_ball() -> None:
    delta = uniform_in_ball(torch.empty(500, 1, 2, 2), 0.5, "linf", seeded(0)).flatten().sort().values
    assert (delta + 0.5 - (torch.arange(2000) + 0.5) / 2000).abs().max() < 1.63 / math.sqrt(2000)


def test_a_random_start_uses_the_ball_and_not_its_corner(make_cnn: Callable[..., nn.Module]) -> None:
    x, y = torch.full((64, 1, 8, 8), 0.5), torch.zeros(64, dtype=torch.int64)
    # A step too short to matter shows the start.
    for norm, eps in (("linf", 0.2), ("l2", 0.5)):
        start = PGD(norm=norm, eps=eps, steps=1, step_size=1e-7)(make_cnn(), x, y, generator=seeded(0)) - x  # type: ignore[arg-type]
        assert start.flatten(1).std(0).min() > 0
        assert 0.8 * eps < norms(start, norm).mean() <= eps


def test_projection_leaves_what_is_inside() -> None:
    x = torch.rand(4, 3, 2, 2, generator=seeded(0)) * 0.2 + 0.4
    inside = x + 0.01
    for norm in ("linf", "l2"):
        assert torch.allclose(project(inside, x, 0.2, norm), inside, atol=1e-7)
    outside = x + 0.3
    assert torch.allclose(norms(project(outside, x, 0.2, "l2") - x, "l2"), torch.tensor(0.2))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_that_vanish_make_no_nan(norm: Any) -> None:
    """A network that saturates has gradients of exactly zero, or too small for their squares."""
    assert torch.equal(steepest(torch.zeros(2, 1, 2, 2), norm), torch.zeros(2, 1, 2, 2))
    tiny = torch.full((1, 1, 2, 2), 1e-30)
    assert torch.allclose(steepest(tiny, norm), torch.full((1, 1, 2, 2), 1.0 if norm == "linf" else 0.5))
    x, y = torch.rand(3, 1, 2, 2, generator=seeded(0)), torch.tensor([0, 1, 0])
    for early_stop in (False, True):
        for restarts in (1, 2):
            attack = PGD(norm=norm, eps=0.1, steps=2, restarts=restarts, early_stop=early_stop)
            assert attack(linear(torch.zeros(2, 4)), x, y, generator=seeded(0)).isfinite().all()


# Restarts and early stopping.


def is_wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) != y


@pytest.mark.parametrize("early_stop", [False, True])
def test_restarts_keep_the_worst_case(
    early_stop: bool, robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = digits_test[0][:200], digits_test[1][:200]
    model = robust_network
    once = PGD(eps=EPS, steps=5, restarts=1, early_stop=early_stop)(model, x, y, generator=seeded(0))
    often = PGD(eps=EPS, steps=5, restarts=4, early_stop=early_stop)(model, x, y, generator=seeded(0))
    broken_once, broken_often = is_wrong(model, once, y), is_wrong(model, often, y)
    assert (broken_often | ~broken_once).all()
    assert broken_often.sum() > broken_once.sum()
    with torch.no_grad():
        loss_once, loss_often = (F.cross_entropy(model(z), y, reduction="none") for z in (once, often))
    unbroken = ~broken_often
    assert (loss_often[unbroken] >= loss_once[unbroken] - 1e-5).all()
    assert (loss_often[unbroken] > loss_once[unbroken] + 1e-5).any()
    assert (norms(often - x, "linf") <= EPS + ROUNDING).all()


def test_stopping_early_is_as_strong_and_returns_what_is_misclassified(
    robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = digits_test[0][:200], digits_test[1][:200]
    settings_: dict[str, Any] = {"eps": EPS, "steps": 10}
    stopped = PGD(**settings_, early_stop=True)(robust_network, x, y, generator=seeded(0))
    last = PGD(**settings_)(robust_network, x, y, generator=seeded(0))
    broken = is_wrong(robust_network, stopped, y)
    assert (broken | ~is_wrong(robust_network, last, y)).all()
    # What withstood went the whole way, and so ends where it would have ended.
    assert torch.allclose(stopped[~broken], last[~broken], atol=1e-5)
    # What fell at once stayed where it was.
    wrong_already = is_wrong(robust_network, x, y)
    assert wrong_already.any()
    stopped_at_once = PGD(**settings_, start="none", early_stop=True)(robust_network, x, y)
    assert torch.equal(stopped_at_once[wrong_already], x[wrong_already])


def test_stopping_early_saves_the_work(robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]) -> None:
    x, y = digits_test[0][:200], digits_test[1][:200]
    seen = {}
    for early_stop in (False, True):
        counts: list[int] = []
        handle = robust_network.register_forward_pre_hook(lambda _, args, c=counts: c.append(len(args[0])))
        PGD(eps=0.3, steps=10, early_stop=early_stop, restarts=2)(robust_network, x, y, generator=seeded(0))
        handle.remove()
        seen[early_stop] = sum(counts)
    assert seen[True] < seen[False] / 2


# Equal in strength to an independent implementation.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("norm", "eps", "step_size"), [("linf", EPS, 0.03), ("l2", 0.7, 0.1)])
def test_as_strong_as_foolbox(
    norm: Any, eps: float, step_size: float, robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = digits_test
    wrapped = foolbox.PyTorchModel(robust_network, bounds=(0, 1), device="cpu")
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    theirs, ours = [], []
    for seed in range(3):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            _, clipped, _ = kind(abs_stepsize=step_size, steps=20)(wrapped, x, y, epsilons=eps)
        x_adv = PGD(norm=norm, eps=eps, steps=20, step_size=step_size)(robust_network, x, y, generator=seeded(seed))
        theirs.append(is_wrong(robust_network, clipped, y))
        ours.append(is_wrong(robust_network, x_adv, y))
    rate_of_theirs, rate = (torch.cat(wrong).float().mean() for wrong in (theirs, ours))
    assert 0.2 < rate_of_theirs < 0.8
    # From seed to seed a success rate moves by 0.008, so that the difference of two means of three moves by 0.0065.
    assert abs(rate - rate_of_theirs) <= 0.02


# Where and how it is called.


def test_it_works_where_gradients_are_off(make_cnn: Callable[..., nn.Module]) -> None:
    model = make_cnn()
    generator = seeded(0)
    x, y = torch.rand(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 3])
    for attack in (PGD(steps=2), PGD(steps=2, restarts=2, early_stop=True), PGD(steps=2, loss="kl"), FGSM("l2", 0.5)):
        expected = attack(model, x, y, generator=seeded(1))
        assert not torch.equal(expected, x)
        with torch.no_grad():
            assert torch.equal(attack(model, x, y, generator=seeded(1)), expected)
        with torch.inference_mode():
            assert torch.equal(attack(model, x, y, generator=seeded(1)), expected)
            made_inside = attack(model, x.clone(), y.clone(), generator=seeded(1))
            with AttackEngine(model).view(x) as view:
                through_view = attack(view, x.clone(), y.clone(), generator=seeded(1))
        assert torch.equal(made_inside, expected)
        assert (through_view - expected).abs().max() < 0.05
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_images_with_gradients_get_none(make_cnn: Callable[..., nn.Module]) -> None:
    x = torch.rand(4, 1, 8, 8, generator=seeded(0), requires_grad=True)
    x_adv = PGD(steps=2)(make_cnn(), x, torch.tensor([0, 1, 2, 3]))
    assert not x_adv.requires_grad
    assert x.grad is None


def test_the_network_is_attacked_in_evaluation_mode_and_stays_in_training_mode() -> None:
    model = nn.Sequential(network(), nn.Dropout(0.5)).train()
    x, y = torch.rand(4, 1, 5, 5, generator=seeded(0)), torch.tensor([0, 1, 2, 3])
    statistics = model[0][1].running_mean.clone()
    first = PGD()(model, x, y, generator=seeded(0))
    assert torch.equal(first, PGD()(model, x, y, generator=seeded(0)))
    assert torch.equal(first, PGD()(model.eval(), x, y, generator=seeded(0)))
    assert torch.equal(model[0][1].running_mean, statistics)
    model.train()
    FGSM()(model, x, y)
    assert all(module.training for module in model.modules())


# What is refused.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 8}, r"eps=8: .*did you mean 8/255\?"),
        ({"eps": 8.0}, r"did you mean 8/255\?"),
        ({"eps": 0.0}, "eps=0.0: expected a positive number"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"norm": "l1"}, "unknown norm 'l1'.*Choices: linf, l2"),
        ({"norm": "Linf"}, "unknown norm 'Linf'; did you mean 'linf'"),
        ({"loss": "dlr"}, "unknown loss 'dlr'"),
        ({"start": "random"}, "unknown start 'random'"),
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"steps": 2.5}, "steps=2.5: expected a whole number of at least 1"),
        ({"restarts": 0}, "restarts=0: expected"),
        ({"step_size": 0}, "step_size=0: expected a number above 0"),
        ({"step_size": -0.1}, "step_size=-0.1: expected"),
        ({"start": "none", "restarts": 2}, "every restart would be the same"),
        ({"start": "none", "loss": "kl"}, "its gradient is zero at the clean image"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PGD(**values)


def test_fgsm_refuses_what_pgd_refuses() -> None:
    with pytest.raises(InputError, match=r"did you mean 16/255\?"):
        FGSM(eps=16)
    with pytest.raises(InputError, match="unknown norm"):
        FGSM(norm="l1")  # type: ignore[arg-type]
    assert FGSM(norm="l2", eps=8).eps == 8


X, Y = torch.full((2, 1, 5, 5), 0.5), torch.tensor([0, 1])
NAN = X.clone()
NAN[1, 0, 2, 2] = float("nan")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X * 255, Y, r"x spans \[127.5, 127.5\]: expected images in \[0, 1\]; divide by 255"),
        (X - 1, Y, "normalisation belongs inside the model"),
        (NAN, Y, r"x spans \[nan, nan\]: expected images in \[0, 1\]$"),
        (X[:0], Y[:0], "x contains no images"),
        (X[0], Y, r"expected float images \(N, C, H, W\)"),
        ((X * 255).to(torch.uint8), Y, "type torch.uint8: expected float images"),
        (X, Y[:1], r"expected int64 labels of shape \(2,\)"),
        (X, Y.int(), "expected int64 labels"),
        (X, F.one_hot(Y), "expected int64 labels"),
        (X, torch.tensor([0, -1]), "y contains the label -1"),
        (X, torch.tensor([0, 4]), "labels span 0 to 4: the network has 4 classes"),
    ],
)
def test_input_that_does_not_fit_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    model = network()
    attacks_: list[Attack] = [PGD(steps=1), PGD(steps=1, loss="margin"), PGD(steps=1, restarts=2), FGSM()]
    for attack in attacks_:
        with pytest.raises(InputError, match=message):
            attack(model, x, y)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())

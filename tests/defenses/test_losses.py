"""The losses of the defences against arithmetic done by hand and against second formulations."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, NoiseFGSM
from robustmaps.defenses import (
    ALP,
    AT,
    DAJAT,
    FAT,
    HAT,
    LIET,
    MART,
    NFGSM,
    TRADES,
    Defense,
    FastAT,
    FriendlyTRADES,
    Minimax,
    Standard,
)
from robustmaps.engine.errors import InputError

CLEAN = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [1.0, 1.0, 3.0]], dtype=torch.float64)
ADVERSARIAL = torch.tensor([[0.1, 0.4, 0.2], [-1.0, 0.5, 0.9], [2.0, 0.0, 1.5]], dtype=torch.float64)
Y = torch.tensor([0, 2, 2])


class Table(nn.Module):
    """Logits that a test sets: image k, whose pixels are all k / 8, has row k."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[(8 * x[:, 0, 0, 0]).round().long()]


@dataclass(frozen=True)
class Next:
    """Leads image k to image k + count."""

    count: int
    eps: float = 1.0
    norm = "linf"
    name = "next"

    def __call__(self, model: object, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return x + self.count / 8


def table() -> tuple[Table, Tensor]:
    """Clean images 0 to 2 with the rows of ``CLEAN``, attacked ones 3 to 5 with those of ``ADVERSARIAL``."""
    return Table(torch.cat([CLEAN, ADVERSARIAL])), (torch.arange(3) / 8).view(3, 1, 1, 1)


def by_name(logits: Tensor, clean: Tensor, y: Tensor, beta: float) -> dict[str, float]:
    """The losses in plain Python, from the formulas of the papers."""
    total = dict.fromkeys(("alp", "trades", "mart"), 0.0)
    for a, c, label in zip(logits.tolist(), clean.tolist(), y.tolist(), strict=True):
        p_a, p_c = ([math.exp(v) / sum(map(math.exp, row)) for v in row] for row in (a, c))
        kl = sum(pc * math.log(pc / pa) for pc, pa in zip(p_c, p_a, strict=True))
        ce_a, ce_c = -math.log(p_a[label]), -math.log(p_c[label])
        wrong = max(p for k, p in enumerate(p_a) if k != label)
        total["alp"] += ce_a + ce_c + beta * sum((u - v) ** 2 for u, v in zip(a, c, strict=True)) / len(a)
        total["trades"] += ce_c + beta * kl
        total["mart"] += ce_a - math.log(1.0001 - wrong) + beta * kl * (1 - p_c[label])
    return {name: value / len(y) for name, value in total.items()}


@pytest.mark.parametrize("beta", [0.0, 0.5, 6.0])
@pytest.mark.parametrize("kind", [ALP, TRADES, MART])
def test_losses_are_those_of_the_papers(kind: Any, beta: float) -> None:
    model, x = table()
    loss = kind(Next(3), beta=beta).loss(model, x, Y)
    assert float(loss.value.detach()) == pytest.approx(by_name(ADVERSARIAL, CLEAN, Y, beta)[kind.name], rel=1e-6)
    assert int(loss.clean_correct) == 2
    assert int(loss.robust_correct) == 1


def test_trades_by_hand() -> None:
    # Clean probabilities 3/4 and 1/4, attacked ones 1/2: CE = log 4/3, KL = log 2 - H(1/4) with H in nats.
    model = Table(torch.tensor([[math.log(3), 0.0], [0.0, 0.0]]))
    x = torch.zeros(1, 1, 1, 1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = TRADES(Next(1), beta=6.0).loss(model, x, torch.tensor([0]))
    assert float(loss.value.detach()) == pytest.approx(math.log(4 / 3) + 6 * (math.log(2) - entropy), rel=1e-5)


def test_mart_by_hand() -> None:
    # Attacked: true 1/4, largest wrong 3/4. CE = log 4, boost = -log(1/4 + 1e-4); clean 1/2, so half the divergence.
    model = Table(torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]))
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    loss = MART(Next(1), beta=5.0).loss(model, torch.zeros(1, 1, 1, 1), torch.tensor([0]))
    expected = math.log(4) - math.log(0.2501) + 5 * kl * 0.5
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)


def test_mart_of_the_published_program_by_hand() -> None:
    # As above, but the boost is 1.0001 - 3/4 without a logarithm, and the divergence runs the other way.
    model = Table(torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]))
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    loss = MART(Next(1), beta=5.0, form="published").loss(model, torch.zeros(1, 1, 1, 1), torch.tensor([0]))
    assert float(loss.value.detach()) == pytest.approx(math.log(4) - 0.2501 + 5 * kl * 0.5, rel=1e-5)
    assert MART(PGD(start="normal"), form="published").attack == PGD(start="uniform")
    assert MART().attack == PGD(start="normal")


def test_alp_by_hand() -> None:
    # Logits (1, 0) and (0, 2): squared differences 1 and 4, mean 5/2, half of it 5/4.
    model = Table(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    loss = ALP(Next(1)).loss(model, torch.zeros(1, 1, 1, 1), torch.tensor([0]))
    clean, attacked = math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))
    assert float(loss.value.detach()) == pytest.approx(clean + attacked + 1.25, rel=1e-5)


def test_hat_by_hand() -> None:
    # The helper example lies twice as far: row 2. The helper says class 1 there.
    model = Table(torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [0.0, math.log(3)]]))
    helper = Table(torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]))
    trades = TRADES(Next(1), beta=2.5).loss(model, torch.zeros(1, 1, 1, 1), torch.tensor([0])).value.detach()
    loss = HAT(helper, Next(1)).loss(model, torch.zeros(1, 1, 1, 1), torch.tensor([0]))
    assert float(loss.value.detach()) == pytest.approx(float(trades) + 0.5 * math.log(4 / 3), rel=1e-5)
    assert helper.rows.grad is None
    loss.value.backward()
    assert helper.rows.grad is None


def test_a_helper_without_answers_is_refused():
    helper = Table(torch.full((3, 2), torch.nan))
    with pytest.raises(InputError, match="helper: its logits are NaN"):
        HAT(helper, Next(1)).loss(Table(torch.zeros(3, 2)), torch.zeros(1, 1, 1, 1), torch.tensor([0]))


def test_dajat_without_copies_is_trades_and_with_them_adds_consistency() -> None:
    model, x = table()
    plain = DAJAT(copies=0, beta=2.0)
    examples = ((x, x + 3 / 8),)
    trades = TRADES(Next(3), beta=2.0).loss(model, x, Y).value.detach()
    assert float(plain.outer(model, x, examples, Y).value.detach()) == pytest.approx(float(trades), rel=1e-6)
    # The copy's clean images are the attacked ones, so that both mixtures can be written down.
    both = DAJAT(copies=1, beta=2.0, consistency=2.0).outer(model, x, (*examples, (x + 3 / 8, x + 3 / 8)), Y)
    p, q = CLEAN.softmax(1), ADVERSARIAL.softmax(1)
    mixture = ((p + q) / 2).log()
    js = (F.kl_div(mixture, p, reduction="batchmean") + F.kl_div(mixture, q, reduction="batchmean")) / 2
    copied = F.cross_entropy(ADVERSARIAL, Y)
    assert float(both.value.detach()) == pytest.approx(float((trades + copied) / 2 + 2 * js), rel=1e-5)


def plain_softmax(row: Sequence[float]) -> list[float]:
    return [math.exp(v) / sum(map(math.exp, row)) for v in row]


def plain_kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_hat_in_plain_python() -> None:
    """Clean image k, attacked k + 3, helper k + 6; the helper's label is that of its row of the attacked image."""
    third = torch.tensor([[0.3, -0.2, 0.9], [1.4, 0.1, -0.5], [-0.6, 0.8, 0.2]])
    model = Table(torch.cat([CLEAN, ADVERSARIAL, third]))
    helper = Table(torch.cat([CLEAN, third, ADVERSARIAL]))
    x = table()[1]
    loss = HAT(helper, Next(3), beta=2.5, gamma=0.5).loss(model, x, Y)
    expected = 0.0
    for clean, attacked, helped, label in zip(
        CLEAN.tolist(), ADVERSARIAL.tolist(), third.tolist(), Y.tolist(), strict=True
    ):
        p, q, r = map(plain_softmax, (clean, attacked, helped))
        guess = max(range(3), key=helped.__getitem__)  # the helper has ``third`` where the attacked images are
        expected += -math.log(p[label]) + 2.5 * plain_kl(p, q) - 0.5 * math.log(r[guess])
    assert float(loss.value.detach()) == pytest.approx(expected / len(Y), rel=1e-6)


def test_dajat_in_plain_python() -> None:
    model, x = table()
    copies = ((x + 3 / 8, x), (x, x))
    loss = DAJAT(copies=2, beta=11.0, consistency=2.0).outer(model, x, ((x, x + 3 / 8), *copies), Y)
    total = 0.0
    for clean, attacked, label in zip(CLEAN.tolist(), ADVERSARIAL.tolist(), Y.tolist(), strict=True):
        p, q = plain_softmax(clean), plain_softmax(attacked)
        trades = [
            -math.log(p[label]) + 11 * plain_kl(p, q),
            -math.log(q[label]) + 11 * plain_kl(q, p),
            -math.log(p[label]),
        ]
        mixture = [(2 * a + b) / 3 for a, b in zip(p, q, strict=True)]
        total += sum(trades) / 3 + 2 * (2 * plain_kl(p, mixture) + plain_kl(q, mixture)) / 3
    assert float(loss.value.detach()) == pytest.approx(total / len(Y), rel=1e-5)


def test_weights_are_perturbed_along_dajats_base_loss() -> None:
    model, x = table()
    examples = ((x, x + 3 / 8), (x + 3 / 8, x))
    climbed = DAJAT(copies=1).climbed(model, x, examples, Y)
    assert float(climbed.detach()) == pytest.approx(by_name(ADVERSARIAL, CLEAN, Y, 11.0)["trades"], rel=1e-6)


def test_fat_stops_tau_steps_after_an_error() -> None:
    """One image that is wrong from the first step on: it makes that step and tau more."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[1].bias.copy_(torch.tensor([-0.45, 0.45]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    attack = PGD(eps=0.4, steps=5, step_size=0.06, start="none")
    reached = [float(FAT(attack, tau=tau).inner(model, x, y, None)) for tau in (0, 1, 2)]
    assert reached == pytest.approx([0.44, 0.38, 0.32], abs=1e-6)


@pytest.mark.parametrize("tau", [0, 2])
def test_friendly_trades_stops_after_an_error_and_has_the_loss_of_trades(
    tau: int, robust_network: nn.Module, digits_test: tuple[Tensor, ...]
) -> None:
    x, y = (values[:32] for values in digits_test)
    attack = PGD(eps=0.2, steps=6, loss="kl", start="normal")
    start = torch.empty_like(x).normal_(std=1e-3, generator=torch.Generator().manual_seed(0))
    clean = robust_network(x).softmax(1).detach()
    left, x_adv = torch.full((32,), tau), (x + start).clamp(0, 1)
    for _ in range(attack.steps):
        x_adv = x_adv.detach().requires_grad_()
        logits = robust_network(x_adv)
        left = left - (logits.argmax(1) != y).long()
        divergence = (clean * (clean.log() - logits.log_softmax(1))).sum()
        (gradient,) = torch.autograd.grad(divergence, x_adv)
        moved = (x_adv + attack.step_length * gradient.sign()).clamp(x - 0.2, x + 0.2).clamp(0, 1)
        x_adv = torch.where((left >= 0).view(-1, 1, 1, 1), moved, x_adv)
    defense = FriendlyTRADES(attack, tau=tau)
    found = defense.inner(robust_network, x, y, torch.Generator().manual_seed(0))
    assert float(((found - x_adv).abs() < 1e-4).float().mean()) > 0.99  # signs of tiny gradients may differ
    assert float((found - x).abs().amax((1, 2, 3)).min()) < 0.1 or tau == 2
    expected = TRADES(attack).outer(robust_network, x, found, y).value
    assert torch.equal(defense.outer(robust_network, x, found, y).value, expected)


def test_the_steps_of_fat_can_be_noisy() -> None:
    """On a linear network every step goes the same way, so that what is left over is the noise."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(400, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.01], [-0.01]]).expand(2, 400))
    x, y = torch.full((2, 1, 20, 20), 0.5), torch.tensor([0, 0])
    attack = PGD(eps=0.4, steps=3, step_size=0.02, start="none")
    still = FAT(attack, tau=9).inner(model, x, y, None)
    noisy = FAT(attack, tau=9, step_noise=0.01).inner(model, x, y, torch.Generator().manual_seed(0))
    noise = (noisy - still) / 0.02
    assert torch.allclose(still, x - 0.06)
    assert float(noise.min()) >= 0
    assert 0.02 < float(noise.max()) <= 0.03  # the sum of three draws below 0.01
    assert float(noise.mean()) == pytest.approx(0.015, rel=0.05)


@pytest.mark.parametrize("tau", [0, 1, 3])
def test_fat_is_algorithm_1_image_by_image(
    tau: int, robust_network: nn.Module, digits_test: tuple[Tensor, ...]
) -> None:
    x, y = (values[:48] for values in digits_test)
    attack = PGD(eps=0.2, steps=7, start="none")
    expected = []
    for image, label in zip(x.split(1), y.split(1), strict=True):
        left, x_adv = tau, image
        for _ in range(attack.steps):
            x_adv = x_adv.detach().requires_grad_()
            logits = robust_network(x_adv)
            if int(logits.argmax(1)) != int(label):
                if left == 0:
                    break
                left -= 1
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, label), x_adv)
            x_adv = x_adv + attack.step_length * gradient.sign()
            x_adv = x_adv.clamp(image - 0.2, image + 0.2).clamp(0, 1)
        expected.append(x_adv.detach())
    found = FAT(attack, tau=tau).inner(robust_network, x, y, None)
    assert torch.allclose(found, torch.cat(expected), atol=1e-6)
    lengths = {round(float(d), 2) for d in (found - x).abs().amax((1, 2, 3))}
    assert len(lengths) > 1 or tau == 3  # not all images were stopped at once, nor none


def test_the_single_steps_by_hand() -> None:
    # The gradient of the cross-entropy is negative for label 0 and positive for label 1; steps of 1.25 eps, cut at eps.
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x, y = torch.tensor([0.5, 0.5]).view(2, 1, 1, 1), torch.tensor([0, 1])

    def entropy(*moved: float) -> float:
        return sum(math.log(1 + math.exp(-2 * m)) for m in moved) / 2

    fast = FastAT(PGD(eps=0.1, steps=1, step_size=0.125, start="none")).loss(model, x, y).value.detach()
    assert float(fast) == pytest.approx(entropy(0.4, -0.6), rel=1e-6)
    noisy = NFGSM(NoiseFGSM(eps=0.1, noise=0.0)).loss(model, x, y).value.detach()
    assert float(noisy) == pytest.approx(entropy(0.4, -0.6), rel=1e-6)


def test_dajat_by_hand() -> None:
    # Base: clean 1/2, attacked 3/4. Copy: clean 3/4, attacked 3/4, so without divergence. Mixture 5/8 and 3/8.
    model = Table(torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]))
    x = torch.zeros(1, 1, 1, 1)
    base, copied = (x, x + 1 / 8), (x + 1 / 8, x + 1 / 8)
    loss = DAJAT(copies=1, beta=2.0, consistency=3.0).outer(model, x, (base, copied), torch.tensor([0]))
    trades = math.log(2) + 2 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    of_base = 0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)
    of_copy = 0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375)
    expected = (trades + math.log(4 / 3)) / 2 + 3 * (of_base + of_copy) / 2
    assert float(loss.value.detach()) == pytest.approx(expected, rel=1e-5)


def test_targets_of_a_network_with_a_wider_head() -> None:
    model, x = table()
    narrow = torch.tensor([0, 1, 1])
    targets = 0.9 * F.one_hot(narrow, 2) + 0.1 / 2
    loss = AT(Next(3)).loss(model, x, narrow, targets=targets).value.detach()
    logs = ADVERSARIAL.log_softmax(1)[:, :2]
    assert float(loss) == pytest.approx(float(-(targets * logs).sum(1).mean()), rel=1e-6)


FAR = torch.tensor([[0.3, -0.2, 0.9], [1.4, 0.1, -0.5], [-0.6, 0.8, 0.2]], dtype=torch.float64)
"""The rows of images 6 to 8: HAT's helper examples."""


@pytest.mark.parametrize(
    ("defense", "examples"),
    [
        (Standard(), lambda x: x),
        (AT(Next(3)), lambda x: x + 3 / 8),
        (ALP(Next(3)), lambda x: x + 3 / 8),
        (TRADES(Next(3)), lambda x: x + 3 / 8),
        (MART(Next(3)), lambda x: x + 3 / 8),
        (HAT(nn.Identity(), Next(3)), lambda x: (x + 3 / 8, x + 6 / 8, torch.tensor([2, 0, 1]))),
        (DAJAT(copies=1), lambda x: ((x, x + 3 / 8), (x + 6 / 8, x + 3 / 8))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_gradients_are_those_of_finite_differences(defense: Any, examples: Callable[[Tensor], Any]) -> None:
    x = table()[1]

    def value(rows: Tensor) -> Tensor:
        model = Table(rows.detach())
        del model.rows
        model.rows = rows
        # The losses work in float32, as training does; here their formula is what is tested.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tensor, "float", lambda tensor: tensor)
            return defense.outer(model, x, examples(x), Y).value  # type: ignore[no-any-return]

    rows = torch.cat([CLEAN, ADVERSARIAL, FAR]).requires_grad_()
    assert torch.autograd.gradcheck(value, rows)


@pytest.mark.parametrize("defense", [AT(Next(3)), ALP(Next(3)), TRADES(Next(3)), MART(Next(3))], ids=lambda d: d.name)
def test_one_hot_targets_are_labels_and_others_are_not(defense: Minimax[Any]) -> None:
    model, x = table()
    plain = defense.loss(model, x, Y).value.detach()
    one_hot = F.one_hot(Y, 3).double()
    assert torch.allclose(defense.loss(model, x, Y, targets=one_hot.float()).value.detach(), plain)
    smoothed = defense.loss(model, x, Y, targets=(0.9 * one_hot + 0.1 / 3).float()).value.detach()
    assert not torch.allclose(smoothed, plain)


def test_one_hot_cross_entropy_with_smoothing_is_pytorchs() -> None:
    model, x = table()
    targets = (0.9 * F.one_hot(Y, 3) + 0.1 / 3).float()
    loss = AT(Next(3)).loss(model, x, Y, targets=targets).value.detach()
    assert float(loss) == pytest.approx(float(F.cross_entropy(ADVERSARIAL, Y, label_smoothing=0.1)), rel=1e-6)


DEFENCES: list[Defense] = [
    AT(PGD(eps=0.1, steps=2)),
    ALP(PGD(eps=0.1, steps=2)),
    TRADES(PGD(eps=0.1, steps=2, loss="kl", start="normal")),
    MART(PGD(eps=0.1, steps=2)),
    FAT(PGD(eps=0.1, steps=2)),
    DAJAT(PGD(eps=0.1)),
    FastAT(PGD(eps=0.1, steps=1, step_size=0.125)),
    NFGSM(),
    LIET(FGSM(eps=0.1)),
    LIET(FGSM(eps=8 / 255)),
]


@pytest.mark.parametrize("defense", DEFENCES, ids=lambda d: d.name)
def test_every_defence_leaves_modes_and_trains_all_parameters(
    defense: Defense, make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model, x, y = make_cnn().train(), make_images(6), torch.arange(6)
    twin = copy.deepcopy(model)
    results = []
    for network in (model, twin):
        loss = defense.loss(network, x, y, generator=torch.Generator().manual_seed(1))
        assert all(module.training for module in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())
        loss.value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        results.append(float(loss.value.detach()))
    assert results[0] == results[1]


def test_strong_copies_leave_the_statistics_alone(
    make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model, x, y = make_cnn().train(), make_images(6), torch.arange(6)
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    examples = DAJAT(PGD(eps=0.1)).inner(model, x, y, generator)
    DAJAT(PGD(eps=0.1)).outer(model, x, examples, y).value.backward()
    for images in examples[0]:
        twin(images)
    for (name, a), (_, b) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    assert model[1].momentum == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TRADES(beta=-1.0), "beta=-1.0: expected a number of at least 0"),
        (lambda: FAT(tau=-1), "tau=-1: expected a whole number"),
        (lambda: FAT(step_noise=-1), "step_noise=-1: expected a number of at least 0"),
        (lambda: FriendlyTRADES(tau=0.5), "tau=0.5: expected a whole number"),
        (lambda: FriendlyTRADES(beta=-1), "beta=-1: expected a number of at least 0"),
        (lambda: MART(form="publishd"), "unknown form 'publishd'; did you mean 'published'"),
        (lambda: DAJAT(copies=-1), "copies=-1"),
        (lambda: NFGSM(attack=NFGSM().attack.__class__(noise=-1)), "noise=-1"),
    ],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_masked_classes_leave_every_loss_as_it_is() -> None:
    """Classes masked with minus infinity have no part in any defence's loss."""
    logits, other = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.randn(4, 3)
    y = torch.tensor([0, 1, 2, 0])
    targets = torch.nn.functional.one_hot(y, 3) * 0.9 + 0.1 / 3

    def masked(values: Tensor, filling: float) -> Tensor:
        return torch.cat([values, torch.full((4, 2), filling)], 1)

    wide = [masked(values, -torch.inf).requires_grad_() for values in (logits, other)]
    for defense in (ALP(), TRADES(), MART()):
        for given, padded in ((None, None), (targets, masked(targets, 0.02))):
            expected = defense._value(logits, other, y, given)
            found = defense._value(*wide, y, padded)
            torch.testing.assert_close(found, expected)
            gradients = torch.autograd.grad(found, wide)
            assert all(bool(gradient.isfinite().all()) for gradient in gradients)

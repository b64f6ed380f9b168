"""Logits and gradients that are NaN or infinite: classes masked, roots at black pixels, overflows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import APGD, FAB, FGSM, PGD, Attack, AutoAttack, Foolbox, NoiseFGSM, Square, logit_margin
from robustmaps.engine.view import plain_view

MAKE = Callable[..., Tensor]
CLASSES = 5


class Masked(nn.Module):
    """A network with more classes than it uses; the others are masked, by filling in or by adding minus infinity."""

    def __init__(self, network: nn.Module, *, adds: bool, classes: int = CLASSES) -> None:
        super().__init__()
        self.network, self.adds, self.classes = network, adds, classes

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        wide = torch.cat([logits, logits.mean(1, keepdim=True).expand(-1, 7)], 1)
        unused = torch.arange(wide.shape[1]) >= self.classes
        if self.adds:
            return wide + torch.zeros_like(wide[0]).masked_fill(unused, -torch.inf)
        return wide.masked_fill(unused, -torch.inf)


ATTACKS: list[Attack] = [
    PGD(eps=0.08, early_stop=True),
    PGD("l2", 0.8, loss="margin", early_stop=True),
    PGD(eps=0.08, loss="kl", start="normal", early_stop=True),
    APGD(eps=0.08, steps=10),
    APGD("l2", 0.2, steps=10, loss="dlr"),
    APGD("linf", 0.08, steps=10, loss="dlr-t"),
    APGD("l1", 1.0, steps=10, loss="dlr-t"),
    FAB("linf", 0.03, steps=10),
    FAB("l2", 0.2, steps=10, targeted=True),
    Square("linf", 0.2, queries=60),
    Square("l2", 2.0, queries=60),
    AutoAttack("l2", 0.2, version=("apgd-t", "fab-t")),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.name}-{attack.norm}")
@pytest.mark.parametrize("adds", [False, True])
def test_masked_classes_change_nothing(attack: Attack, adds: bool, make_cnn: MAKE, make_images: MAKE) -> None:
    network, x = make_cnn(classes=CLASSES).eval(), make_images(12)
    y = network(x).argmax(1)
    alone = attack(network, x, y, generator=torch.Generator().manual_seed(0))
    masked = attack(Masked(network, adds=adds), x, y, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(masked, alone, atol=1e-4, rtol=0)
    assert not torch.equal(alone, x)


@pytest.mark.filterwarnings("ignore:.*the loss needs")
@pytest.mark.parametrize("loss", ["dlr", "dlr-t"])
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_beside_masked_ones(loss: str, classes: int, make_cnn: MAKE, make_images: MAKE) -> None:
    network, x = make_cnn(classes=classes).eval(), make_images(8)
    y = network(x).argmax(1)
    attack = APGD(eps=0.2, steps=8, loss=loss)  # type: ignore[arg-type]
    alone = attack(network, x, y, generator=torch.Generator().manual_seed(0))
    masked = attack(Masked(network, adds=False, classes=classes), x, y, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(masked, alone, atol=1e-4, rtol=0)
    assert not torch.equal(alone, x)


@pytest.mark.parametrize(("name", "norm"), [("deepfool", "linf"), ("deepfool", "l2"), ("slide", "l1")])
def test_masked_classes_change_nothing_for_foolbox(name: str, norm: str, make_cnn: MAKE, make_images: MAKE) -> None:
    pytest.importorskip("foolbox")
    network, x = make_cnn(classes=CLASSES).eval(), make_images(6)
    y = network(x).argmax(1)
    attack = Foolbox(name, norm, {"linf": 0.2, "l2": 2.0, "l1": 20.0}[norm], steps=10)  # type: ignore[arg-type]
    alone, masked = (attack(one, x, y) for one in (network, Masked(network, adds=False)))
    torch.testing.assert_close(masked, alone, atol=1e-4, rtol=0)
    assert not torch.equal(alone, x)


class Steep(nn.Module):
    """A network behind an operation without a finite derivative somewhere."""

    def __init__(self, network: nn.Module, kind: str) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "sqrt":
            x = x.sqrt()
        elif self.kind == "norm":
            x = x * x.square().sum(1, keepdim=True).sqrt()
        elif self.kind == "power":
            x = x.pow(0.3)
        elif self.kind == "std":
            x = x / (x.var((2, 3), keepdim=True).sqrt() + 0.1)
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("kind", ["sqrt", "norm", "power", "std"])
@pytest.mark.parametrize(
    "attack",
    [
        *(FGSM(), FGSM("l2", 0.3), NoiseFGSM(noise=0.0), PGD(start="none"), PGD("l2", 0.3, start="normal", loss="kl")),
        *(APGD(steps=6), APGD("l1", 2.0, steps=6), FAB("linf", 0.1, steps=6), FAB("l2", 0.3, steps=6, minimal=True)),
    ],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_images_stay_finite_at_black_pixels(attack: Attack, kind: str, make_cnn: MAKE, make_images: MAKE) -> None:
    x = (make_images(6) - 0.5).clamp(min=0)  # half black
    x[0] = 0.0
    network = Steep(make_cnn().eval(), kind)
    y = network(x).argmax(1)
    with plain_view(network) as view:
        found = attack(view, x, y, generator=torch.Generator().manual_seed(0))
        assert view.passes.backward >= view.mended
        assert view.mended > 0 or attack.name not in ("fgsm", "n-fgsm")
    assert bool(found.isfinite().all())
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_a_step_uses_the_sign_of_an_infinite_slope() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.sqrt().sum((1, 2, 3))
            return torch.stack([1.0 - score, score - 1.0], 1)

    x, y = torch.zeros(1, 1, 3, 3), torch.tensor([0])
    assert float(FGSM(eps=0.1)(Root(), x, y).min()) == pytest.approx(0.1)


class Fragile(nn.Module):
    """Class 0 everywhere; NaN where the image is brighter than a threshold."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        nan = torch.where(mean > 0.55, torch.nan, 0.0)
        return torch.stack([3 - mean + nan, mean, 0 * mean, 0 * mean], 1)


@pytest.mark.parametrize(
    "attack",
    [
        *(PGD(eps=0.2, early_stop=True), PGD("l2", 1.0, loss="margin", early_stop=True), Square(eps=0.2, queries=40)),
        *(APGD(eps=0.2, steps=10), APGD("l2", 1.0, steps=10, loss="dlr-t"), FAB("l2", 1.0, steps=10, minimal=True)),
    ],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_nan_is_an_error_that_attacks_find(attack: Attack) -> None:
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    found = attack(Fragile(), x, y, generator=torch.Generator().manual_seed(0))
    assert bool(found.isfinite().all())
    assert bool(Fragile()(found).isnan().any(1).all())


def test_the_margin_of_nan_is_infinite() -> None:
    logits = torch.tensor([[torch.nan, 1.0], [1.0, torch.nan], [2.0, -torch.inf], [-torch.inf, 1.0], [torch.inf] * 2])
    margin = logit_margin(logits, torch.zeros(5, dtype=torch.int64))
    assert margin.tolist() == [torch.inf, torch.inf, -torch.inf, torch.inf, torch.inf]

"""Passes are counted exactly: against a network that counts its own."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import APGD, FAB, FGSM, PGD, Attack, AutoAttack, Foolbox, NoiseFGSM, Square
from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackEngine, AttackView, ViewOptions, plain_view
from robustmaps.engine.views.passes import Passes
from robustmaps.evaluation import Evaluation, evaluate

MAKE = Callable[..., Any]


@pytest.fixture(autouse=True)
def from_zero() -> None:
    Counting.counts = [0, 0]


class Counting(nn.Module):
    """Counts the images that go through it forward and backward; copies share the counts."""

    counts: ClassVar = [0, 0]

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        Counting.counts[0] += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._backward)
        return logits

    def _backward(self, gradient: Tensor) -> None:
        Counting.counts[1] += len(gradient)


def counted() -> Passes:
    return Passes(*Counting.counts)


@pytest.mark.parametrize(
    "attack",
    [
        *(FGSM(), NoiseFGSM(), PGD(steps=3), PGD(steps=4, restarts=2, early_stop=True), PGD(steps=3, loss="kl")),
        *(APGD(steps=5), APGD(steps=3, eot=2), APGD("l1", 2.0, steps=5), APGD(steps=4, loss="dlr-t", patience=3.0)),
        *(FAB(steps=4), FAB(steps=5, targeted=True, patience=3.0), FAB("l2", 0.3, steps=4, minimal=True)),
        *(Square(queries=30), Square("l2", 0.3, queries=30), AutoAttack(version=("apgd-ce", "fab-t"))),
        *(Foolbox("deepfool", "l2", 0.3), Foolbox("cw", "l2", 0.3, steps=3), Foolbox("pgd-l1", "l1", 2.0, steps=3)),
    ],
    ids=lambda attack: f"{attack.name}-{attack.norm}",
)
def test_the_counts_of_an_attack_are_those_of_the_network(attack: Attack, make_cnn: MAKE, make_images: MAKE) -> None:
    x = make_images(6)
    network = Counting(make_cnn().eval())
    y = make_cnn().eval()(x).argmax(1)
    with plain_view(network) as view:
        attack(view, x, y, generator=torch.Generator().manual_seed(0))
        assert view.passes == counted()
        assert view.passes.forward >= 6


@pytest.mark.parametrize("backward", [True, False])
def test_a_view_that_is_given_up_goes_on_counting(backward: bool, make_cnn: MAKE, make_images: MAKE) -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("a kernel is missing")

    network = Counting(make_cnn().eval())
    view = AttackView(fails, instead=AttackView(network))
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            view.gradient(make_images(5), lambda logits: logits[:, 0]) if backward else view(make_images(5))
    assert view.passes == counted() == Passes(15, 15 if backward else 0)


def test_images_that_pad_a_batch_do_not_count(make_cnn: MAKE, make_images: MAKE) -> None:
    network = make_cnn().eval()
    view = AttackView(network.forward, ViewOptions(compile=True))  # pads as compiled views do
    view(make_images(16))
    view(make_images(3))
    assert view.passes.forward == 19


@pytest.mark.parametrize("channels", [1, 3])
def test_square_counts_a_window_as_an_image(channels: int, make_images: MAKE) -> None:
    """Only the changed part of the maps is computed, but the network's answer is asked for all the same."""
    x = make_images(4, channels, size=32)
    with torch.random.fork_rng([]):
        torch.manual_seed(1)  # with some weights, rounding decides on a query
        convolutions = [nn.Conv2d(channels if n == 0 else 8, 8, 3, padding=1) for n in range(3)]
        network = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 32 * 32, 4))
    network[-1].bias.data[0] = 3.0  # far from the boundary
    y = network(x).argmax(1)
    attack = Square(eps=0.01, queries=200)
    found, passes = [], []
    for one in (network, Counting(network)):  # the second can be run only as a whole
        with plain_view(one) as view:
            found.append(attack(view, x, y, generator=torch.Generator().manual_seed(0)))
            passes.append(view.passes)
    assert torch.allclose(found[0], found[1], atol=1e-7)
    assert passes[1] == counted()
    # Three passes find out whether the network can be run in windows. Windows that change nothing are not asked about.
    assert passes[0] == passes[1] + Passes(4 * 3)
    assert passes[1].forward < 4 * 200


def test_an_evaluation_counts_attacks_and_verdicts(make_cnn: MAKE, make_images: MAKE) -> None:
    x = make_images(10)
    network = Counting(make_cnn().eval())
    y = make_cnn().eval()(x).argmax(1)
    y[0] = (y[0] + 1) % 10  # wrong when clean, and not attacked
    engine = AttackEngine(network, ViewOptions(precision="fp32"))
    engine.settle(x[:8])
    Counting.counts = [0, 0]
    attacks = [PGD(steps=3, early_stop=True), APGD(steps=4)]
    found = evaluate(network, x, y, attacks, engine=engine, batch_size=4, checks=False)
    # Beside those of attacks: clean accuracy, and a first trial of one image and of two.
    assert found.passes == counted() - Passes(len(x) + 3)
    assert found.attacked == 9
    assert found.passes is not None
    recorded = found.to_dict()
    assert recorded["passes_per_image"]["forward"] == pytest.approx(found.passes.forward / 9)
    for stage in recorded["stages"]:
        assert stage["passes_per_image"]["backward"] == pytest.approx(stage["passes"]["backward"] / stage["attacked"])


class Misled(AttackEngine):
    """An engine whose view is of another network, so that what it breaks is often not broken."""

    def __init__(self, network: nn.Module, other: nn.Module) -> None:
        super().__init__(network)
        self.other = other

    @contextmanager
    def view(self, example: Tensor) -> Iterator[AttackView]:
        yield AttackView(self.other)


def test_disputed_images_count_twice(make_cnn: MAKE, make_images: MAKE) -> None:
    """An image that is broken for the view alone is attacked again on the network itself."""
    x = make_images(6)
    network = Counting(make_cnn().eval())
    y = make_cnn().eval()(x).argmax(1)
    Counting.counts = [0, 0]
    attack = PGD(eps=1e-4, steps=2, early_stop=True)
    misled = Misled(network, Counting(make_cnn(seed=1).eval()))
    with pytest.warns(UserWarning, match="fast copy of the network differs"):  # of those that stand for it, too
        found = evaluate(network, x, y, attack, engine=misled, batch_size=8, checks=False)
    assert found.passes is not None
    assert found.passes.backward > 6  # those that the view gets wrong when clean
    assert found.passes == counted() - Passes(len(x) + 3)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ({"forward": -1, "backward": 0}, r"stages\.passes\.forward=-1: expected a whole number of at least 0"),
        ({"forward": 1.5, "backward": 0}, r"stages\.passes\.forward=1\.5: expected a whole number"),
        ("many", r"stages\.passes='many': expected keys and values"),
    ],
)
def test_counts_of_a_file_are_checked(passes: Any, message: str, make_cnn: MAKE, make_images: MAKE) -> None:
    network = make_cnn().eval()
    recorded = evaluate(network, make_images(3), network(make_images(3)).argmax(1), FGSM(), checks=False).to_dict()
    assert Evaluation.from_dict(recorded).to_dict() == recorded
    stages = [{**stage, "passes": passes} for stage in recorded["stages"]]
    with pytest.raises(InputError, match=message):
        Evaluation.from_dict({**recorded, "stages": stages})
    # Earlier versions did not count.
    stages = [{name: value for name, value in stage.items() if name != "passes"} for stage in recorded["stages"]]
    assert Evaluation.from_dict({**recorded, "stages": stages}).passes is None

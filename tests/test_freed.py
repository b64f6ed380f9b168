"""Networks are freed when work on them has ended: studies make thousands in one process."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import robustmaps
from robustmaps import TrainOptions, attacks, defenses
from robustmaps.analysis import analyze, measure_cost
from robustmaps.data import Dataset
from robustmaps.engine.memory import fitting_batch
from robustmaps.engine.view import AttackEngine, ViewOptions, plain_view

Work = Callable[[nn.Module, Tensor, Tensor, Dataset], object]
OPTIONS = TrainOptions(epochs=1, batch_size=20, device="cpu", precision="fp32", ema=0.9)


def fit(defense: str, **options: object) -> Work:
    def work(network: nn.Module, x: Tensor, y: Tensor, data: Dataset) -> object:
        chosen = TrainOptions(**{**vars(OPTIONS), **options})
        return robustmaps.fit(network, data, defenses.create(defense, "linf", 0.1), chosen)

    return work


def attacked(name: str, **parameters: object) -> Work:
    def work(network: nn.Module, x: Tensor, y: Tensor, data: Dataset) -> object:
        return robustmaps.evaluate(network, x, y, attacks.create(name, "linf", 0.1, **parameters))

    return work


def viewed(network: nn.Module, x: Tensor, y: Tensor, data: Dataset) -> object:
    with AttackEngine(network, ViewOptions(precision="bf16")).view(x) as view:
        view.gradient(x, lambda logits: logits.sum(1))
    with plain_view(network) as plain:
        return fitting_batch(plain, x)


WORK: dict[str, Work] = {
    "cost": lambda network, x, y, data: measure_cost(network, x),
    "view": viewed,
    "enlarge": lambda network, x, y, data: robustmaps.enlarge(network, x, upsample=2),
    "plan": lambda network, x, y, data: robustmaps.plan(network, x),
    "analyze": lambda network, x, y, data: analyze(network, x, y, steps=2),
    "diagnose": lambda network, x, y, data: robustmaps.diagnose(network, x, y, norm="linf", eps=0.1),
    "at": fit("at"),
    "trades-awp": fit("trades-awp"),
    "free-at": fit("free-at"),
    "stages": fit("at", checkpoint_stages="on", ema=0.0, swa=0.5),
    "autoattack": attacked("autoattack"),
    "pgd": attacked("pgd", steps=3),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WORK)
def test_nothing_keeps_a_network(
    name: str,
    make_cnn: Callable[..., nn.Module],
    make_images: Callable[..., Tensor],
    make_dataset: Callable[..., Dataset],
) -> None:
    network, x, y = make_cnn(size=6, classes=2).eval(), make_images(8, size=6), torch.arange(8) % 2
    kept = [weakref.ref(parameter) for parameter in network.parameters()]
    before = sum(type(each) is nn.Parameter for each in gc.get_objects())
    WORK[name](network, x, y, make_dataset())
    del network
    gc.collect()
    assert not [ref for ref in kept if ref() is not None]
    assert sum(type(each) is nn.Parameter for each in gc.get_objects()) <= before - len(kept)

"""Enlarged networks under the attack view, the compiler, ``functional_call`` and an optimizer's eyes."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from robustmaps import models
from robustmaps.engine.view import AttackEngine, ViewOptions
from robustmaps.enlarging import enlarge
from tests.helpers.enlarge_networks import Branches, Functional, SharedPool
from tests.helpers.last_map import randomise

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")

IMAGES = torch.rand(4, 3, 32, 32)


def enlarged(network: nn.Module, where: int | list[int] = 0) -> nn.Module:
    return enlarge(randomise(network), IMAGES[:1], factor=2, where=where, upsample=1.5, latency_runs=0)[0]


@pytest.mark.parametrize(
    "network", [Functional(), Branches(), models.create("vgg11_bn")], ids=lambda n: type(n).__name__
)
def test_the_attack_view_sees_the_same_network(network: nn.Module) -> None:
    larger = enlarged(network)
    with torch.no_grad():
        expected = larger(IMAGES)
    with AttackEngine(larger, ViewOptions()).view(IMAGES) as view:
        logits, _, gradient = view.gradient(IMAGES, lambda logits: logits.sum(1))
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert gradient.abs().sum() > 0


def test_functional_call_takes_other_weights() -> None:
    larger = enlarged(SharedPool(), [0, 1])
    weights = {name: torch.zeros_like(value) for name, value in larger.named_parameters()}
    assert torch.equal(functional_call(larger, weights, IMAGES), torch.zeros(4, 10))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", [SharedPool(), Branches()], ids=lambda n: type(n).__name__)
def test_an_enlarged_network_compiles(network: nn.Module) -> None:
    larger = enlarged(network)
    with torch.no_grad():
        assert torch.allclose(torch.compile(larger)(IMAGES), larger(IMAGES), rtol=1e-4, atol=1e-5)

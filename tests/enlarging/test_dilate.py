"""``dilate=True`` keeps the function: the old map stands in the new one, and a trained network decides as before."""

import pytest
import torch
from torch import nn

from robustmaps import models
from robustmaps.enlarging import enlarge
from tests.helpers.enlarge_networks import Branches, Functional, Gated, OptionA, SharedPool, SpaceToDepth, plain
from tests.helpers.last_map import last_map, randomise

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")


def padding_free(pool: nn.Module, stride: int = 2) -> nn.Sequential:
    """Branch-free, without padding, with a grouped and a dilated convolution."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4),
        pool,
        nn.Conv2d(8, 8, (3, 2), 2, dilation=(1, 2)),
        nn.Conv2d(8, 8, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def check_standing(network: nn.Module, image: torch.Tensor, where: int | list[int], factor: int = 2) -> None:
    larger, enlargement = enlarge(network, image, factor=factor, where=where, dilate=True, latency_runs=0)
    old, new = last_map(network, image), last_map(larger, image)
    apart = factor ** len(enlargement.where)
    standing = new[:, :, ::apart, ::apart]
    assert new.shape[2:].numel() > old.shape[2:].numel()
    assert standing.shape == old.shape
    assert torch.allclose(standing, old, rtol=1e-4, atol=1e-5)
    assert enlargement.after.field_px == enlargement.before.field_px


@pytest.mark.parametrize("size", [(48, 48), (47, 61)])
@pytest.mark.parametrize("where", [0, 1, 2, [0, 1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(3, 2)], ids=str)
def test_the_old_map_stands_in_the_new_one_without_padding(
    pool: nn.Module, where: int | list[int], size: tuple[int, int]
) -> None:
    check_standing(randomise(padding_free(pool)), torch.rand(1, 3, *size), where)


def test_a_stride_of_three_is_kept_by_taps_three_apart() -> None:
    network = randomise(padding_free(nn.MaxPool2d(3, 3), stride=3))
    image = torch.rand(1, 3, 90, 75)
    check_standing(network, image, 0, factor=3)
    check_standing(network, image, [0, 1], factor=3)


@pytest.mark.parametrize("where", [0, 1, [0, 1]])
@pytest.mark.parametrize("name", ["resnet8", "preactresnet18"])
def test_padding_is_as_exact_where_maps_halve_evenly(name: str, where: int | list[int]) -> None:
    network = randomise(models.create(name))
    check_standing(network, torch.rand(1, 3, 32, 32), where)


@pytest.mark.parametrize(
    "network", [SharedPool(), Functional(), OptionA(), plain(padding=1)], ids=lambda n: str(n)[:10]
)
def test_functional_and_shared_calls_are_dilated_as_well(network: nn.Module) -> None:
    check_standing(randomise(network), torch.rand(1, 3, 32, 32), "first")


def test_explicit_padding_and_side_branches() -> None:
    check_standing(randomise(Branches()), torch.rand(1, 3, 32, 32), 0)
    check_standing(randomise(Gated()), torch.rand(1, 1, 32, 32), 1)
    check_standing(randomise(SpaceToDepth()), torch.rand(1, 3, 32, 32), [0, 1])


def test_an_average_over_shifted_copies_keeps_a_trained_networks_decisions() -> None:
    """A pattern of vertical against horizontal bars, learned at stride 2, is told apart without that stride as well."""
    torch.manual_seed(0)
    bars = (torch.arange(16) // 2 % 2).float()
    images = torch.stack([bars.expand(3, 16, 16), bars[:, None].expand(3, 16, 16)]).repeat(16, 1, 1, 1)
    images = images + 0.1 * torch.rand(32, 3, 16, 16)
    labels = torch.arange(2).repeat(16)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, enlargement = enlarge(network, images, factor=2, dilate=True, labels=labels, latency_runs=0)
    assert enlargement.before.accuracy == 1
    assert enlargement.after.accuracy == 1
    assert enlargement.agreement == 1
    assert "clean accuracy" in str(enlargement)


def test_nan_is_no_accuracy_and_no_agreement() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(network[4].weight, float("nan"))
    labels = torch.zeros(4, dtype=torch.int64)
    _, enlargement = enlarge(network, torch.rand(4, 3, 8, 8), factor=2, dilate=True, labels=labels, latency_runs=0)
    assert enlargement.before.accuracy == enlargement.after.accuracy == enlargement.agreement == 0.0

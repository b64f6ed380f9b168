"""What networks compute: shapes, normalisation, upsampling, shortcuts, and what they refuse."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.models import Network, Normalize, upsampling


@pytest.mark.parametrize("name", models.names())
def test_names_give_logits_for_any_channels_and_classes(name):
    with torch.device("meta"):
        network = models.create(name, in_channels=1, num_classes=7)
        assert network(torch.empty(2, 1, 32, 48)).shape == (2, 7)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn", "resnet8", "resnet18", "preactresnet18"])
def test_families_learn_from_real_images(name):
    torch.manual_seed(0)
    network = models.create(name, num_classes=4)
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    logits = network(x)
    F.cross_entropy(logits, torch.tensor([0, 3])).backward()
    assert logits.shape == (2, 4)
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_convolutions_start_at_kaimings_scale():
    torch.manual_seed(0)
    network = models.create("vgg11")
    last = network.body.features.group5[2]
    assert last.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not last.bias.any()


def test_the_same_seed_gives_the_same_network():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(models.create("resnet8").state_dict())
    assert all(torch.equal(networks[0][key], networks[1][key]) for key in networks[0])


def test_normalisation_and_upsampling_come_before_the_body():
    network = models.create("resnet8", in_channels=1, mean=[0.25], std=[0.5], upsample=2).eval()
    x = torch.rand(2, 1, 8, 8)
    enlarged = ((x - 0.25) / 0.5).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(network(x), network.body(enlarged), rtol=0, atol=0)


def test_bilinear_upsampling_keeps_a_ramp():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    # Pixel centres: enlarged pixel i lies at (i + 0.5) / 2 - 0.5 of the ramp, held at its ends.
    expected = ((torch.arange(16) + 0.5) / 2 - 0.5).clamp(0, 7)
    torch.testing.assert_close(upsampling(2, "bilinear")(ramp), expected.expand(1, 1, 16, 16))


def test_bicubic_upsampling_overshoots_an_edge():
    edge = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]).expand(1, 1, 8, 8)
    row = upsampling(2, "bicubic")(edge)[0, 0, 0]
    torch.testing.assert_close(row + row.flip(0), torch.ones(16))
    assert row.min() < 0
    assert row.max() > 1


def test_area_repeats_pixels_for_whole_factors_and_weighs_them_for_others():
    x = torch.rand(1, 3, 6, 6)
    assert torch.equal(upsampling(3, "area")(x), upsampling(3, "nearest")(x))
    # Three pixels on two: the middle one covers half of each.
    row = upsampling(1.5, "area")(torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2))[0, 0, 0]
    assert row.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet8", "preactresnet18"])
def test_max_pooling_takes_the_largest_value_of_the_same_map(name):
    torch.manual_seed(0)
    average, largest = models.create(name).eval(), models.create(name, pool="max").eval()
    largest.load_state_dict(average.state_dict())
    x = torch.rand(2, 3, 64, 64)
    features = average.body.features(x)
    torch.testing.assert_close(largest(x), largest.body.head(features.amax((2, 3))), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(largest(x), average(x))
    assert torch.equal(models.create(name, pool="avg").body.pool(features), average.body.pool(features))


def test_a_pool_that_no_network_has():
    with pytest.raises(InputError, match=r"unknown pool 'mean'.* Choices: avg, max"):
        models.create("resnet8", pool="mean")


def test_no_upsampling_and_no_normalisation_change_nothing():
    network = models.create("resnet8")
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(network.upsample(network.normalize(x)), x)


def test_normalisation_is_state_and_not_learned():
    network = models.create("resnet8", mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    state = network.state_dict()
    torch.testing.assert_close(state["normalize.mean"].flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(state["normalize.std"].flatten(), torch.tensor([1.0, 2.0, 3.0]))
    assert not any(name.startswith("normalize") for name, _ in network.named_parameters())


def shortcut(network: Network, group: int, block: int = 0) -> nn.Module:
    return network.body.features.get_submodule(f"group{group}")[block].shortcut


def test_shortcuts_are_identities_where_the_shape_stays():
    network = models.create("resnet18", strides="1122")
    assert isinstance(shortcut(network, 1), nn.Identity)
    assert isinstance(shortcut(network, 2, block=1), nn.Identity)
    assert shortcut(network, 2)[0].stride == (1, 1)
    assert shortcut(network, 3)[0].stride == (2, 2)
    assert shortcut(network, 3)[0].kernel_size == (1, 1)
    assert isinstance(shortcut(models.create("resnet8"), 1), nn.Identity)
    assert shortcut(models.create("resnet8", strides="222"), 1)[0].stride == (2, 2)


def test_residual_block_adds_before_the_last_relu():
    block = models.create("resnet8").eval().body.features.group1[0]
    conv1, bn1, _, conv2, bn2 = block.path
    x = torch.rand(1, 16, 4, 4)
    torch.testing.assert_close(block(x), F.relu(bn2(conv2(F.relu(bn1(conv1(x))))) + x))


@pytest.mark.parametrize("group", [1, 2])
def test_preactivated_block_projects_the_activated_input(group):
    block = models.create("preactresnet18").eval().body.features.get_submodule(f"group{group}")[0]
    bn = block.preact[0]
    conv1, bn1, _, conv2 = block.path
    x = torch.randn(1, 64, 4, 4)
    activated = F.relu(bn(x))
    expected = x if group == 1 else F.conv2d(activated, block.projection.weight, stride=2)
    torch.testing.assert_close(block(x), conv2(F.relu(bn1(conv1(activated)))) + expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "unknown model 'resnet19'; did you mean 'resnet"),
        ({"name": "wrn32_10"}, "unknown model 'wrn32_10'; did you mean 'wrn"),
        ({"num_classes": 0}, "num_classes=0: expected a whole number of at least 1"),
        ({"in_channels": 1.5}, "in_channels=1.5: expected a whole number of at least 1"),
        ({"mean": (0.5,)}, "mean=(0.5,): expected 3 finite numbers, one per channel"),
        ({"std": (0.5, 0.0, 0.5)}, "std=(0.5, 0.0, 0.5): expected 3 positive numbers, one per channel"),
        ({"mean": (0.5, float("nan"), 0.5)}, "expected 3 finite numbers"),
        ({"upsample": 0.5}, "upsample=0.5: expected a number of at least 1"),
        ({"upsample_mode": "bicubc"}, "unknown upsample mode 'bicubc'; did you mean 'bicubic'?"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        models.create(**{"name": "resnet8", **arguments})


@pytest.mark.parametrize(
    ("name", "arguments", "least_px"),
    [
        ("vgg11_bn", {}, 32),
        ("vgg16", {"strides": "11222"}, 8),
        ("vgg11", {"upsample": 2}, 16),
        ("alexnet", {}, 15),  # 15 px leave 8, 4, 2 and 1
        ("alexnet", {"upsample": 2, "upsample_mode": "bilinear"}, 8),
    ],
)
def test_images_that_shrink_to_nothing_are_refused_with_the_least_size(name, arguments, least_px):
    network = models.create(name, **arguments).eval()
    network(torch.rand(1, 3, least_px, least_px))
    small_px = least_px - 1
    message = (
        f"images of {small_px}x{small_px} px: the maps shrink below one pixel; expected at least {least_px}x{least_px}"
    )
    with pytest.raises(InputError, match=message):
        network(torch.rand(1, 3, small_px, small_px))
    with pytest.raises(InputError, match=message):
        models.feature_map_size(network, (small_px, small_px))


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8)])
def test_other_channels_are_refused_and_not_broadcast(shape):
    with pytest.raises(InputError, match=re.escape(f"images of shape {shape}: expected (N, 3, H, W)")):
        models.create("resnet8")(torch.rand(shape))


def test_other_failures_of_the_body_keep_their_error():
    network = Network(Normalize(3), nn.Identity(), nn.Linear(5, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        network(torch.rand(2, 3, 8, 8))
    assert not isinstance(caught.value, InputError)


def test_networks_can_be_traced_and_compiled_whole():
    network = models.create("vgg11", upsample=2, strides="22221").eval()
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))
    assert torch.equal(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))

"""The networks of the publication: every map, worked out by hand, and their random weights and details."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from robustmaps import models
from robustmaps.engine.errors import InputError

# Channels and side of the map behind each part, for images of 32 x 32 pixels, by hand from strides and kernels.
MAPS = {
    ("alexnet", "2222", 1): "64x16 64x16 64x8 192x8 192x8 192x4 384x4 384x4 256x4 256x4 256x4 256x4 256x2",
    # A pool of 2 pixels with stride 1 makes a map one pixel smaller.
    ("alexnet", "1122", 1): "64x32 64x32 64x31 192x31 192x31 192x15 384x15 384x15 256x15 256x15 256x15 256x15 256x7",
    ("alexnet", "2222", 2): "64x32 64x32 64x16 192x16 192x16 192x8 384x8 384x8 256x8 256x8 256x8 256x8 256x4",
    ("alexnet", "1122", 2): "64x64 64x64 64x63 192x63 192x63 192x31 384x31 384x31 256x31 256x31 256x31 256x31 256x15",
    ("vgg16_bn", "22222", 1): "64x16 128x8 256x4 512x2 512x1",
    ("vgg16_bn", "11222", 1): "64x32 128x32 256x16 512x8 512x4",
    ("vgg16_bn", "22222", 2): "64x32 128x16 256x8 512x4 512x2",
    ("vgg16_bn", "11222", 2): "64x64 128x64 256x32 512x16 512x8",
    ("resnet18", "1222", 1): "64x32 64x32 128x16 256x8 512x4",
    ("resnet18", "1122", 1): "64x32 64x32 128x32 256x16 512x8",
    ("resnet18", "1112", 1): "64x32 64x32 128x32 256x32 512x16",
    ("resnet18", "1111", 1): "64x32 64x32 128x32 256x32 512x32",
    ("resnet18", "1222", 2): "64x64 64x64 128x32 256x16 512x8",
    ("preactresnet18", "1222", 1): "64x32 64x32 128x16 256x8 512x4 512x4",
    ("preactresnet18", "1122", 1): "64x32 64x32 128x32 256x16 512x8 512x8",
    ("preactresnet18", "1222", 2): "64x64 64x64 128x32 256x16 512x8 512x8",
    ("resnet50", "1222", 1): "64x32 256x32 512x16 1024x8 2048x4",
    ("wrn28_10", "122", 1): "16x32 160x32 320x16 640x8 640x8",
    ("resnet8", "122", 1): "16x32 16x32 32x16 64x8",
    ("resnet20_conv_shortcut", "112", 1): "16x32 16x32 32x32 64x16",
}


# Of every network with its own strides: those of a family have the same maps whatever their depth.
_VGG, _NARROW = "64x16 128x8 256x4 512x2 512x1", "16x32 16x32 32x16 64x8"
_BASIC, _BOTTLENECK = "64x32 64x32 128x16 256x8 512x4", "64x32 256x32 512x16 1024x8 2048x4"
OWN = {
    "alexnet": MAPS["alexnet", "2222", 1],
    **{f"vgg{depth}{ending}": _VGG for depth in (11, 13, 16, 19) for ending in ("", "_bn", "_pool2", "_bn_pool2")},
    **{f"resnet{depth}{ending}": _NARROW for depth in (8, 20, 32, 44, 56, 110) for ending in ("", "_conv_shortcut")},
    **dict.fromkeys(("resnet18", "resnet34"), _BASIC),
    **dict.fromkeys(("resnet50", "resnet101", "resnext50_32x4d"), _BOTTLENECK),
    **dict.fromkeys(("preactresnet18", "preactresnet34"), f"{_BASIC} 512x4"),
    **dict.fromkeys(("preactresnet50", "preactresnet101"), f"{_BOTTLENECK} 2048x4"),
    **dict.fromkeys(("wrn28_10", "wrn34_10"), MAPS["wrn28_10", "122", 1]),
    "wrn34_20": "16x32 320x32 640x16 1280x8 1280x8",
}


def maps(name: str, **arguments: Any) -> str:
    with torch.device("meta"):
        network = models.create(name, **arguments)
        x = network.upsample(torch.empty(2, 3, 32, 32))
        found = []
        for part in network.body.features:
            x = part(x)
            assert x.shape[2] == x.shape[3]
            found.append(f"{x.shape[1]}x{x.shape[2]}")
    return " ".join(found)


@pytest.mark.parametrize("name", models.names())
def test_every_network_has_the_maps_of_its_family(name: str) -> None:
    assert maps(name) == OWN[name]


@pytest.mark.parametrize(("name", "strides", "upsample"), MAPS)
def test_every_map_has_its_size(name: str, strides: str, upsample: int) -> None:
    assert maps(name, strides=strides, upsample=upsample) == MAPS[name, strides, upsample]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("alexnet", "64x3x5x5 192x64x5x5 384x192x3x3 256x384x3x3 256x256x3x3 512x256 512x512 10x512"),
        (
            "vgg16_bn",
            "64x3x3x3 64x64x3x3 128x64x3x3 128x128x3x3 256x128x3x3 256x256x3x3 256x256x3x3 512x256x3x3 512x512x3x3 "
            "512x512x3x3 512x512x3x3 512x512x3x3 512x512x3x3 256x512 256x256 10x256",
        ),
        (
            "resnet18",
            "64x3x3x3 64x64x3x3 64x64x3x3 64x64x3x3 64x64x3x3 "
            "128x64x3x3 128x128x3x3 128x64x1x1 128x128x3x3 128x128x3x3 "
            "256x128x3x3 256x256x3x3 256x128x1x1 256x256x3x3 256x256x3x3 "
            "512x256x3x3 512x512x3x3 512x256x1x1 512x512x3x3 512x512x3x3 10x512",
        ),
        (
            "resnet8_conv_shortcut",
            "16x3x3x3 16x16x3x3 16x16x3x3 32x16x3x3 32x32x3x3 32x16x1x1 64x32x3x3 64x64x3x3 64x32x1x1 10x64",
        ),
    ],
)
def test_every_layer_has_its_shape(name: str, layers: str) -> None:
    with torch.device("meta"):
        weights = [p for p in models.create(name).parameters() if p.ndim > 1]
    assert ["x".join(map(str, weight.shape)) for weight in weights] == layers.split()


def drawn(name: str, init: str) -> models.Network:
    torch.manual_seed(5)
    return models.create(name, init=init)


def spread(weight: torch.Tensor) -> float:
    return float(weight.detach().std())


def test_alexnet_and_preactresnet_are_drawn_as_pytorch_draws() -> None:
    # PyTorch's layers draw uniformly within 1 / sqrt(fan-in), whose standard deviation is that over sqrt(3).
    for name, layer, fan_in in (
        ("alexnet", "body.features.conv3", 192 * 9),
        ("preactresnet18", "body.features.group3.1.path.0", 256 * 9),
    ):
        weight = drawn(name, "published").get_submodule(layer).weight
        assert spread(weight) == pytest.approx((3 * fan_in) ** -0.5, rel=0.02)
        assert float(weight.detach().abs().max()) <= fan_in**-0.5
        ours = drawn(name, "kaiming").get_submodule(layer).weight
        assert spread(ours) == pytest.approx((2 / (9 * len(ours))) ** 0.5, rel=0.02)
    assert drawn("alexnet", "published").body.features.conv3.bias.any()


def test_wide_resnet_is_drawn_by_fan_out_without_biases() -> None:
    network = drawn("wrn28_10", "published")
    weight = network.body.features.group1[1].path[0].weight
    assert spread(weight) == pytest.approx((2 / (9 * 160)) ** 0.5, rel=0.02)
    assert not network.body.head.bias.any()


def test_vgg_has_small_linear_layers_and_resnet_is_drawn_as_ours() -> None:
    network = drawn("vgg16_bn", "published")
    assert spread(network.body.features.group5[0].weight) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    for layer in (network.body.head[0], network.body.head[3]):
        assert spread(layer.weight) == pytest.approx(0.01, rel=0.02)
        assert not layer.bias.any()
    ours, published = (drawn("resnet18", init).state_dict() for init in ("kaiming", "published"))
    assert all(torch.equal(ours[key], published[key]) for key in ours)


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("unknown init 'published_'; did you mean 'published'")):
        models.create("resnet8", init="published_")


def test_shortcuts_of_the_publication_have_no_batch_norm() -> None:
    plain, ours = (models.create(name).body.features.group2[0] for name in ("resnet8_conv_shortcut", "resnet8"))
    assert [type(layer) for layer in plain.shortcut] == [nn.Conv2d]
    assert [type(layer) for layer in ours.shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    x = torch.rand(2, 16, 8, 8)
    plain.eval()
    expected = torch.relu(plain.path(x) + torch.nn.functional.conv2d(x, plain.shortcut[0].weight, stride=2))
    assert torch.equal(plain(x), expected)


@pytest.mark.parametrize(("name", "reads"), [("vgg11", 3), ("vgg11_pool2", 2)])
def test_windows_of_pools_with_larger_strides(name: str, reads: int) -> None:
    pool = models.create(name, strides="13222").body.features.group2[-1]
    row = torch.arange(9.0).expand(1, 1, 9, 9)
    assert (pool.kernel_size, pool.stride) == (reads, 3)
    assert pool(row)[0, 0, 0].tolist() == [reads - 1, reads + 2, reads + 5]
    same = [models.create(one, strides="11222").body.features for one in ("vgg16_bn", "vgg16_bn_pool2")]
    assert [m.kernel_size for m in same[0].modules() if isinstance(m, nn.MaxPool2d)] == [2, 2, 2]
    assert str(same[0]).replace("stride=2", "") == str(same[1]).replace("stride=2", "")

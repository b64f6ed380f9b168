"""Parameter counts and map sizes of every network, against published figures and formulas written by hand."""

import pytest
import torch

from robustmaps import models

# torchvision's networks for ImageNet are ours but for the stem and the head (its documentation, "Num Params").
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def from_torchvision(name: str) -> int:
    published = TORCHVISION[name]
    if name.startswith("vgg"):
        their_head = linear(512 * 7 * 7, 4096) + linear(4096, 4096) + linear(4096, 1000)
        return published - their_head + linear(512, 256) + linear(256, 256) + linear(256, 10)
    width = 512 if name in ("resnet18", "resnet34") else 2048
    return published - 64 * 3 * (7 * 7 - 3 * 3) - linear(width, 1000) + linear(width, 10)


def narrow_resnet(depth: int) -> int:
    blocks = (depth - 2) // 6
    stem = 3 * 16 * 9 + 2 * 16
    groups = sum(blocks * (2 * w * w * 9 + 4 * w) for w in (16, 32, 64))
    # The first block of groups 2 and 3 reads half the width and has a 1x1 convolution with batch-norm beside it.
    changes = sum(-(w // 2) * w * 9 + (w // 2) * w + 2 * w for w in (32, 64))
    return stem + groups + changes + linear(64, 10)


def preact_basic(stem: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> int:
    total = 3 * stem * 9 + 2 * widths[-1] + linear(widths[-1], 10)
    for before, width, depth in zip((stem, *widths[:-1]), widths, depths, strict=True):
        first = 2 * before + before * width * 9 + 2 * width + width * width * 9
        projection = before * width if before != width or width != widths[0] else 0
        total += first + projection + (depth - 1) * (4 * width + 2 * width * width * 9)
    return total


def preact_bottleneck(depths: tuple[int, ...]) -> int:
    total = 3 * 64 * 9 + 2 * 2048 + linear(2048, 10)
    for before, width, depth in zip((64, 256, 512, 1024), (256, 512, 1024, 2048), depths, strict=True):
        inner = width // 4
        middle = 2 * inner + inner * inner * 9 + 2 * inner + inner * width
        total += before * width + 2 * before + before * inner + middle
        total += (depth - 1) * (2 * width + width * inner + middle)
    return total


ALEXNET = (
    (3 * 25 + 1) * 64
    + (64 * 25 + 1) * 192
    + (192 * 9 + 1) * 384
    + (384 * 9 + 1) * 256
    + (256 * 9 + 1) * 256
    + linear(256, 512)
    + linear(512, 512)
    + linear(512, 10)
)

PARAMETERS = {
    "alexnet": ALEXNET,
    **{name: from_torchvision(name) for name in TORCHVISION},
    **{f"{name}_pool2": from_torchvision(name) for name in TORCHVISION if name.startswith("vgg")},
    **{f"resnet{depth}": narrow_resnet(depth) for depth in (8, 20, 32, 44, 56, 110)},
    # Without the two batch-norms of 32 and 64 channels beside groups 2 and 3.
    **{f"resnet{depth}_conv_shortcut": narrow_resnet(depth) - 2 * 96 for depth in (8, 20, 32, 44, 56, 110)},
    "preactresnet18": preact_basic(64, (64, 128, 256, 512), (2, 2, 2, 2)),
    "preactresnet34": preact_basic(64, (64, 128, 256, 512), (3, 4, 6, 3)),
    "preactresnet50": preact_bottleneck((3, 4, 6, 3)),
    "preactresnet101": preact_bottleneck((3, 4, 23, 3)),
    "wrn28_10": preact_basic(16, (160, 320, 640), (4, 4, 4)),
    "wrn34_10": preact_basic(16, (160, 320, 640), (5, 5, 5)),
    "wrn34_20": preact_basic(16, (320, 640, 1280), (5, 5, 5)),
}


def build(name: str, **arguments: object) -> models.Network:
    """A network of shapes only, which costs no memory however wide it is."""
    with torch.device("meta"):
        return models.create(name, **arguments)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet18", 11_173_962),
        ("preactresnet18", 11_172_170),
        ("resnet50", 23_520_842),
        ("wrn28_10", 36_479_194),
        ("wrn34_10", 46_160_474),
    ],
)
def test_formulas_give_the_published_counts(name, published):
    assert PARAMETERS[name] == published


@pytest.mark.parametrize("name", models.names())
def test_parameters(name):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "strides"), [("resnet18", "1122"), ("vgg16_bn", "11222"), ("wrn28_10", "111")])
def test_smaller_strides_need_the_same_number_of_parameters(name, strides):
    assert sum(parameter.numel() for parameter in build(name, strides=strides).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "strides", "image_px", "map_px"),
    [
        ("alexnet", None, 32, 2),
        ("alexnet", "1122", 32, 7),  # 32, a stride-1 pool to 31, then 15 and 7
        ("alexnet", "1111", 8, 5),
        ("vgg11", None, 32, 1),
        ("vgg13_bn", None, 64, 2),
        ("vgg16_bn", "11222", 32, 4),
        ("vgg19", "11111", 8, 8),
        ("vgg16", "11113", 32, 10),
        ("resnet8", None, 8, 2),
        ("resnet8", "111", 8, 8),
        ("resnet20", "112", 32, 16),
        ("resnet32", None, 32, 8),
        ("resnet18", None, 32, 4),
        ("resnet18", "1122", 32, 8),
        ("resnet34", "2222", 28, 2),
        ("resnet50", None, 64, 8),
        ("resnet34", "1112", 32, 16),
        ("resnext50_32x4d", "1122", 32, 8),
        ("preactresnet18", "1122", 32, 8),
        ("preactresnet50", None, 32, 4),
        ("wrn28_10", None, 32, 8),
        ("wrn34_10", "112", 32, 16),
        ("wrn34_20", "111", 32, 32),
    ],
)
def test_map_sizes(name, strides, image_px, map_px):
    network = build(name, strides=strides)
    assert models.feature_map_size(network, (image_px, image_px)) == (map_px, map_px)


@pytest.mark.parametrize(
    ("upsample", "mode", "expected"),
    [(1, "nearest", (4, 4)), (2, "nearest", (8, 8)), (2, "bilinear", (8, 8)), (1.5, "bicubic", (6, 6))],
)
def test_upsampling_enlarges_the_map(upsample, mode, expected):
    network = build("resnet18", upsample=upsample, upsample_mode=mode)
    assert models.feature_map_size(network, (32, 32)) == expected


def test_map_size_is_what_the_pool_receives():
    network = models.create("resnet8", in_channels=1, strides="112").train()
    seen = []
    network.body.pool.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    network(torch.rand(2, 1, 12, 20))
    assert models.feature_map_size(network, (12, 20)) == seen[0] == (6, 10)
    assert network.training
    assert not network.body.features.stem[1].running_mean.is_meta

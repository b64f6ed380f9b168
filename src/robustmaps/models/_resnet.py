"""ResNet (arXiv:1512.03385) and ResNeXt (arXiv:1611.05431) for small images: a 3x3 stem of stride 1, no max pooling."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from robustmaps.models._classifier import Architecture, Classifier, conv, residual_groups, scaled
from robustmaps.models._other_names import residual_names
from robustmaps.models._strides import Strides

_OTHER_NAMES = residual_names(
    {
        "conv1": "path.0",
        "bn1": "path.1",
        "conv2": "path.3",
        "bn2": "path.4",
        "conv3": "path.6",
        "bn3": "path.7",
        r"(?:downsample|shortcut)\.0|shortway": "shortcut.0",
        r"(?:downsample|shortcut)\.1": "shortcut.1",
    },
    {"conv[01]": "features.stem.0", "bn[01]": "features.stem.1", "fc|linear": "head"},
)


class Residual(nn.Module):
    """A residual block: ``relu(path(x) + shortcut(x))``.

    The shortcut is the identity, or a 1x1 convolution if the shape changes: with batch-norm unless ``plain``.
    """

    def __init__(
        self, path: nn.Sequential, in_channels: int, out_channels: int, stride: int, *, plain: bool = False
    ) -> None:
        super().__init__()
        self.path = path
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(conv(in_channels, out_channels, 1, stride))
            if not plain:
                self.shortcut.append(nn.BatchNorm2d(out_channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out: torch.Tensor = self.relu(self.path(x) + self.shortcut(x))
        return out


def basic(in_channels: int, out_channels: int, stride: int, *, plain: bool = False) -> Residual:
    """Two 3x3 convolutions; ``plain`` as for `Residual`."""
    path = nn.Sequential(
        conv(in_channels, out_channels, 3, stride),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        conv(out_channels, out_channels, 3),
        nn.BatchNorm2d(out_channels),
    )
    return Residual(path, in_channels, out_channels, stride, plain=plain)


def bottleneck(in_channels: int, out_channels: int, stride: int, *, reduction: int = 4, groups: int = 1) -> Residual:
    """A strided 3x3 convolution on ``out_channels / reduction`` channels, between two 1x1 convolutions."""
    inner = out_channels // reduction
    path = nn.Sequential(
        conv(in_channels, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        conv(inner, inner, 3, stride, groups=groups),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        conv(inner, out_channels, 1),
        nn.BatchNorm2d(out_channels),
    )
    return Residual(path, in_channels, out_channels, stride)


def resnet(
    strides: Strides,
    in_channels: int,
    num_classes: int,
    *,
    block: Callable[[int, int, int], Residual],
    stem: int,
    widths: Sequence[int],
    depths: Sequence[int],
    factors: Sequence[float] | None = None,
) -> Classifier:
    """Stem, groups of blocks, linear head.

    Args:
        strides: stride of each group.
        in_channels: channels of the images.
        num_classes: number of logits.
        block: builds a block from input channels, output channels and stride.
        stem: channels of the first convolution.
        widths: output channels of each group.
        depths: number of blocks in each group.
        factors: what each group's channels are multiplied by; the stem's by the first.

    Raises:
        InputError: this gives no whole number of channels.
    """
    widths, (stem,) = scaled(widths, factors), scaled((stem,), factors and factors[:1])
    first = nn.Sequential(conv(in_channels, stem, 3), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
    groups = residual_groups(block, in_channels=stem, widths=widths, depths=depths, strides=strides)
    return Classifier(nn.Sequential(OrderedDict(stem=first, **groups)), nn.Linear(widths[-1], num_classes))


def _narrow(depth: int, *, plain: bool = False) -> Architecture:
    """Three groups of (depth - 2) / 6 basic blocks, 16 to 64 channels wide (section 4.2 of the ResNet paper).

    Plain shortcuts are those of the programs of arXiv 2202.12435.
    """
    block = partial(basic, plain=plain)
    build = partial(resnet, block=block, stem=16, widths=(16, 32, 64), depths=((depth - 2) // 6,) * 3)
    name = f"resnet{depth}{'_conv_shortcut' * plain}"
    return Architecture(name, "ResNet", Strides((1, 2, 2)), "one per group", build, renamed=_OTHER_NAMES, groups=3)


def _wide(
    name: str,
    block: Callable[[int, int, int], Residual],
    widths: Sequence[int],
    depths: Sequence[int],
    family: str = "ResNet",
) -> Architecture:
    """Four groups after a stem of 64 channels (table 1 of the ResNet paper, with a stem for small images)."""
    build = partial(resnet, block=block, stem=64, widths=widths, depths=depths)
    return Architecture(name, family, Strides((1, 2, 2, 2)), "one per group", build, renamed=_OTHER_NAMES, groups=4)


_NARROW = (8, 20, 32, 44, 56, 110)
_BASIC, _BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)
ROWS = (
    *map(_narrow, _NARROW),
    _wide("resnet18", basic, _BASIC, (2, 2, 2, 2)),
    _wide("resnet34", basic, _BASIC, (3, 4, 6, 3)),
    _wide("resnet50", bottleneck, _BOTTLENECK, (3, 4, 6, 3)),
    _wide("resnet101", bottleneck, _BOTTLENECK, (3, 4, 23, 3)),
    _wide("resnext50_32x4d", partial(bottleneck, reduction=2, groups=32), _BOTTLENECK, (3, 4, 6, 3), "ResNeXt"),
    *(_narrow(depth, plain=True) for depth in _NARROW),
)

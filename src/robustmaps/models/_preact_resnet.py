"""PreActResNet (arXiv:1603.05027) for small images: batch-norm and ReLU precede each convolution."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from robustmaps.models._classifier import Architecture, Classifier, as_made, conv, residual_groups, scaled
from robustmaps.models._other_names import residual_names
from robustmaps.models._strides import Strides

OTHER_NAMES = residual_names(
    {
        "bn1": "preact.0",
        "conv1": "path.0",
        "bn2": "path.1",
        "conv2": "path.3",
        "bn3": "path.4",
        "conv3": "path.6",
        r"shortcut\.0|convShortcut": "projection",
    },
    {"conv1": "features.stem", "bn1?": "features.last.0", "fc|linear": "head"},
)


class PreActResidual(nn.Module):
    """A residual block: ``path(preact(x)) + shortcut``.

    The shortcut is x itself, or a 1x1 convolution of ``preact(x)`` if the shape changes.
    """

    def __init__(self, path: nn.Sequential, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.preact = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.path = path
        changes = stride != 1 or in_channels != out_channels
        self.projection = conv(in_channels, out_channels, 1, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        activated = self.preact(x)
        shortcut = x if self.projection is None else self.projection(activated)
        out: torch.Tensor = self.path(activated) + shortcut
        return out


def basic(in_channels: int, out_channels: int, stride: int) -> PreActResidual:
    """Two 3x3 convolutions."""
    path = nn.Sequential(
        conv(in_channels, out_channels, 3, stride),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        conv(out_channels, out_channels, 3),
    )
    return PreActResidual(path, in_channels, out_channels, stride)


def bottleneck(in_channels: int, out_channels: int, stride: int) -> PreActResidual:
    """A strided 3x3 convolution on a quarter of the channels, between two 1x1 convolutions."""
    inner = out_channels // 4
    path = nn.Sequential(
        conv(in_channels, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        conv(inner, inner, 3, stride),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        conv(inner, out_channels, 1),
    )
    return PreActResidual(path, in_channels, out_channels, stride)


def preact_resnet(
    strides: Strides,
    in_channels: int,
    num_classes: int,
    *,
    block: Callable[[int, int, int], PreActResidual],
    stem: int,
    widths: Sequence[int],
    depths: Sequence[int],
    factors: Sequence[float] | None = None,
) -> Classifier:
    """Stem, groups of blocks, a last batch-norm and ReLU, linear head; arguments and errors as for `resnet`."""
    widths, (stem,) = scaled(widths, factors), scaled((stem,), factors and factors[:1])
    groups = residual_groups(block, in_channels=stem, widths=widths, depths=depths, strides=strides)
    last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
    features = nn.Sequential(OrderedDict(stem=conv(in_channels, stem, 3), **groups, last=last))
    return Classifier(features, nn.Linear(widths[-1], num_classes))


def _row(
    depth: int, block: Callable[[int, int, int], PreActResidual], widths: Sequence[int], depths: Sequence[int]
) -> Architecture:
    build = partial(preact_resnet, block=block, stem=64, widths=widths, depths=depths)
    name, strides = f"preactresnet{depth}", Strides((1, 2, 2, 2))
    return Architecture(name, "PreActResNet", strides, "one per group", build, as_made, OTHER_NAMES, groups=4)


ROWS = (
    _row(18, basic, (64, 128, 256, 512), (2, 2, 2, 2)),
    _row(34, basic, (64, 128, 256, 512), (3, 4, 6, 3)),
    _row(50, bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3)),
    _row(101, bottleneck, (256, 512, 1024, 2048), (3, 4, 23, 3)),
)

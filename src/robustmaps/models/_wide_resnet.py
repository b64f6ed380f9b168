"""Wide ResNet (arXiv:1605.07146): a shallow, wide PreActResNet of three groups."""

from functools import partial

from torch import nn

from robustmaps.models._classifier import Architecture, kaiming
from robustmaps.models._preact_resnet import OTHER_NAMES, basic, preact_resnet
from robustmaps.models._strides import Strides


def draw_published(network: nn.Module) -> None:
    """Convolutions by `kaiming`, linear layers without biases."""
    kaiming(network)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _row(depth: int, factor: int) -> Architecture:
    """Three groups of (depth - 4) / 6 basic blocks, ``factor`` times as wide as in ResNet-20 (table 1)."""
    widths = (16 * factor, 32 * factor, 64 * factor)
    build = partial(preact_resnet, block=basic, stem=16, widths=widths, depths=((depth - 4) // 6,) * 3)
    name, strides = f"wrn{depth}_{factor}", Strides((1, 2, 2))
    return Architecture(name, "Wide ResNet", strides, "one per group", build, draw_published, OTHER_NAMES, groups=3)


ROWS = (_row(28, 10), _row(34, 10), _row(34, 20))

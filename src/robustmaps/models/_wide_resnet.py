"""Wide ResNet (arXiv:1605.07146): a shallow, wide PreActResNet of three groups."""

from functools import partial

from robustmaps.models._classifier import Architecture, as_made
from robustmaps.models._preact_resnet import basic, preact_resnet
from robustmaps.models._strides import Strides


def _row(depth: int, factor: int) -> Architecture:
    """Three groups of (depth - 4) / 6 basic blocks, ``factor`` times as wide as in ResNet-20 (table 1)."""
    widths = (16 * factor, 32 * factor, 64 * factor)
    build = partial(preact_resnet, block=basic, stem=16, widths=widths, depths=((depth - 4) // 6,) * 3)
    return Architecture(f"wrn{depth}_{factor}", "Wide ResNet", Strides((1, 2, 2)), "one per group", build, as_made)


ROWS = (_row(28, 10), _row(34, 10), _row(34, 20))

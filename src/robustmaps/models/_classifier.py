"""The parts that all families share: the classifier, residual groups and the row of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from robustmaps.engine.errors import InputError
from robustmaps.models._other_names import Rename
from robustmaps.models._strides import Strides


class Classifier(nn.Module):
    """Features (N, C, H, W), their average or maximum (N, C), and a head that returns logits (N, classes).

    Global pooling lets every network take images of any size with any strides.
    """

    def __init__(self, features: nn.Sequential, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        logits: torch.Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def kaiming(network: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. (arXiv 1502.01852), by fan-out; the rest stays as it is."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def as_made(network: nn.Module) -> None:
    """Keep the weights as PyTorch's layers draw them."""


@dataclass(frozen=True)
class Architecture:
    """What is known of a network: as ``ROW``, or several as ``ROWS``, in the module of its family.

    Attributes:
        name: the name on the command line.
        family: the family's name in papers.
        strides: the default stride of each downsampling step.
        steps: the steps that the strides apply to, such as ``one per group``.
        build: builds the body from strides, input channels and number of classes.
        draw_published: draws the weights of the body as the programs of arXiv 2202.12435 do for the family.
        renamed: what the body's layers are called here, by their names in other programs' checkpoints.
        groups: how many groups of layers have widths of their own; ``build`` then takes ``factors`` too, one for each,
            by which their channels are multiplied. 0 where the widths are fixed.
    """

    name: str
    family: str
    strides: Strides
    steps: str
    build: Callable[..., nn.Module]
    draw_published: Callable[[nn.Module], None] = kaiming
    renamed: Rename | None = None
    groups: int = 0


def scaled(widths: Sequence[int], factors: Sequence[float] | None) -> tuple[int, ...]:
    """Channels, each times its factor; as they are without factors.

    >>> scaled((16, 32, 64), (1, 1, 0.5))
    (16, 32, 32)

    Raises:
        InputError: a product is not a whole number of at least 1.
    """
    products = [width * factor for width, factor in zip(widths, factors or (1,) * len(widths), strict=True)]
    for width, product in zip(widths, products, strict=True):
        if product < 1 or product != int(product):
            raise InputError(
                f"{width} channels times {product / width:g} are {product:g}; expected a whole number, such as with a "
                "factor of 0.5 or 2"
            )
    return tuple(map(int, products))


def residual_groups(
    block: Callable[[int, int, int], nn.Module],
    *,
    in_channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    strides: Strides,
) -> dict[str, nn.Module]:
    """Groups of residual blocks; the first block of a group applies its stride and changes the width.

    Args:
        block: builds a block from input channels, output channels and stride.
        in_channels: input channels of the first group.
        widths: output channels of each group.
        depths: number of blocks in each group.
        strides: stride of each group.
    """
    groups: dict[str, nn.Module] = {}
    for number, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True), start=1):
        blocks = [block(in_channels, width, stride), *(block(width, width, 1) for _ in range(depth - 1))]
        groups[f"group{number}"] = nn.Sequential(*blocks)
        in_channels = width
    return groups


def conv(in_channels: int, out_channels: int, kernel_px: int, stride: int = 1, *, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded to keep the map's size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel_px, stride, kernel_px // 2, groups=groups, bias=False)

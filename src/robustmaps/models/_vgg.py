"""VGG (arXiv:1409.1556) with global average pooling and a small head.

The VGG-16 of the paper's experiments is ``vgg16_bn``: the published code trains it (github.com/MTandHJ/rcm, README).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from robustmaps.models._classifier import Architecture, Classifier, kaiming, scaled
from robustmaps.models._other_names import Rename, in_order
from robustmaps.models._strides import Strides

WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    strides: Strides,
    in_channels: int,
    num_classes: int,
    *,
    depths: Sequence[int],
    batch_norm: bool,
    pool_px: int | None = None,
    factors: Sequence[float] | None = None,
) -> Classifier:
    """Five groups of 3x3 convolutions, each followed by a max pool, and a head of three layers.

    Args:
        strides: stride of the max pool after each group; a pool of stride 1 is omitted.
        in_channels: channels of the images.
        num_classes: number of logits.
        depths: number of convolutions in each group.
        batch_norm: add a batch-norm after each convolution.
        pool_px: side of the pools' windows; None for as much as their stride.
        factors: what each group's channels are multiplied by.

    Raises:
        InputError: this gives no whole number of channels.
    """
    groups: dict[str, nn.Module] = {}
    for number, (width, depth, stride) in enumerate(
        zip(scaled(WIDTHS, factors), depths, strides, strict=True), start=1
    ):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            in_channels = width
        if stride > 1:
            layers.append(nn.MaxPool2d(pool_px or stride, stride))
        groups[f"group{number}"] = nn.Sequential(*layers)
    head = nn.Sequential(
        nn.Linear(in_channels, 256),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(256, 256),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(256, num_classes),
    )
    return Classifier(nn.Sequential(OrderedDict(groups)), head)


def draw_published(network: nn.Module) -> None:
    """Convolutions by `kaiming`; weights of linear layers from N(0, 0.01), without biases."""
    kaiming(network)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def _rows(depth: int, depths: Sequence[int], pool_px: int | None = None) -> Iterator[Architecture]:
    """One column of table 1 of the VGG paper (A, B, D, E), without and with batch-norm.

    With windows of 2 pixels, strides above 2 skip pixels, as in the programs of arXiv 2202.12435.
    """
    for batch_norm in (False, True):
        build = partial(vgg, depths=depths, batch_norm=batch_norm, pool_px=pool_px)
        name = f"vgg{depth}{'_bn' * batch_norm}{f'_pool{pool_px}' if pool_px else ''}"
        strides, names = Strides((2, 2, 2, 2, 2)), _other_names(depths, batch_norm=batch_norm)
        yield Architecture(name, "VGG", strides, "one per max pool", build, draw_published, names, groups=5)


def _other_names(depths: Sequence[int], *, batch_norm: bool) -> Rename:
    """The layers with weights of each convolution: itself and its batch-norm, followed by a ReLU."""
    layers = 3 if batch_norm else 2
    features = [
        f"features.group{group}.{layers * number + layer}"
        for group, depth in enumerate(depths, start=1)
        for number in range(depth)
        for layer in range(layers - 1)
    ]
    return in_order(features, {f"classifier.{number}": f"head.{number}" for number in (0, 3, 6)})


_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
ROWS = (
    *(row for depth, depths in _DEPTHS.items() for row in _rows(depth, depths)),
    *(row for depth, depths in _DEPTHS.items() for row in _rows(depth, depths, 2)),
)

"""The networks of docs/comparison-tables.md without a name of their own, as ``benchmarks.comparisons.networks:three``.

For the digits of scikit-learn: one channel, 8 x 8 pixels, ten classes.
"""

from functools import partial

from torch import nn

from robustmaps import models
from robustmaps.models._resnet import basic, resnet
from robustmaps.models._strides import Strides


def plain(*widths: int) -> nn.Sequential:
    """3x3 convolutions with batch-norm and ReLU, the second and third with stride 2, and the average before a head."""
    layers: list[nn.Module] = []
    channels = 1
    for number, width in enumerate(widths):
        stride = 2 if number in (1, 2) else 1
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


three = partial(plain, 32, 64, 128)
four = partial(plain, 32, 64, 128, 128)
five = partial(plain, 32, 64, 128, 128, 128)


def _resnet8(*widths: int) -> nn.Module:
    return resnet(Strides((1, 2, 2)), 1, 10, block=basic, stem=widths[0], widths=widths, depths=(1, 1, 1))


half = partial(_resnet8, 8, 16, 32)
double = partial(_resnet8, 32, 64, 128)


def maximum() -> nn.Module:
    """ResNet-8 with a maximum in place of the average."""
    network = models.create("resnet8", in_channels=1, num_classes=10)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, nn.AdaptiveMaxPool2d(1))
    return network

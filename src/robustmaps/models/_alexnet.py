"""AlexNet (arXiv:1404.5997) for small images: a 5x5 stem, 2x2 max pools, global average pooling and a small head."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from robustmaps.models._classifier import Architecture, Classifier, as_made, scaled
from robustmaps.models._other_names import in_order
from robustmaps.models._strides import Strides

_OTHER_NAMES = in_order(
    [f"features.conv{number}" for number in range(1, 6)],
    {f"classifier.{number}": f"head.{number}" for number in (1, 4, 6)},
)


def alexnet(
    strides: Strides, in_channels: int, num_classes: int, *, factors: Sequence[float] | None = None
) -> Classifier:
    """Five convolutions, max pools after the first, second and fifth, and a head of three layers.

    Args:
        strides: strides of the first convolution and the three max pools. A pool of stride 1 stays and makes each side
            one pixel shorter.
        in_channels: channels of the images.
        num_classes: number of logits.
        factors: what the channels of each convolution are multiplied by.

    Raises:
        InputError: this gives no whole number of channels.
    """
    first, second, third, fourth, last = scaled((64, 192, 384, 256, 256), factors)
    conv1, pool1, pool2, pool5 = strides
    features = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(in_channels, first, 5, conv1, padding=2),
        relu1=nn.ReLU(inplace=True),
        pool1=nn.MaxPool2d(2, pool1),
        conv2=nn.Conv2d(first, second, 5, padding=2),
        relu2=nn.ReLU(inplace=True),
        pool2=nn.MaxPool2d(2, pool2),
        conv3=nn.Conv2d(second, third, 3, padding=1),
        relu3=nn.ReLU(inplace=True),
        conv4=nn.Conv2d(third, fourth, 3, padding=1),
        relu4=nn.ReLU(inplace=True),
        conv5=nn.Conv2d(fourth, last, 3, padding=1),
        relu5=nn.ReLU(inplace=True),
        pool5=nn.MaxPool2d(2, pool5),
    )
    head = nn.Sequential(
        nn.Dropout(),
        nn.Linear(last, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(512, 512),
        nn.ReLU(inplace=True),
        nn.Linear(512, num_classes),
    )
    return Classifier(nn.Sequential(features), head)


ROW = Architecture(
    name="alexnet",
    family="AlexNet",
    strides=Strides((2, 2, 2, 2)),
    steps="for conv1, pool1, pool2 and pool5",
    build=alexnet,
    draw_published=as_made,
    renamed=_OTHER_NAMES,
    groups=5,
)

"""Networks with few channels: on CPUs, their strided 1x1 convolutions must not be trained in channels-last order."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robustmaps import models
from robustmaps.attacks import PGD
from robustmaps.defenses import AT
from robustmaps.engine.calling import trains_in_channels_last
from robustmaps.training import TrainOptions, fit
from robustmaps.training._trainee import Trainee

CPU = torch.device("cpu")


class Called(nn.Module):
    """A strided 1x1 convolution without a module."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 4, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight, stride=2).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "safe"),
    [
        (models.create("resnet8"), True),
        (models.create("resnet8_w0.25"), False),
        (models.create("resnet18_w0.0625"), False),
        (nn.Conv2d(4, 8, 1), True),
        (nn.Conv2d(4, 8, 3, 2), True),
        (nn.Conv2d(16, 8, 1, 2), True),
        (nn.Conv2d(16, 8, 1, 2, groups=4), False),
        (nn.Conv2d(4, 8, 1, (1, 2)), False),
        (Called(), False),
    ],
)
def test_who_trains_in_channels_last(network, safe):
    assert trains_in_channels_last(network, CPU) == safe
    assert trains_in_channels_last(network, torch.device("cuda"))


@pytest.mark.parametrize("last", [True, False])
def test_gradients_of_a_narrow_network(last):
    """They ended the process or were wrong where the images are in channels-last order, as those of files often are."""
    torch.manual_seed(0)
    network = models.create("resnet8_w0.25").train()
    exact = copy.deepcopy(network).double()
    trainee = Trainee(network, "fp32", False, 16, channels_last=trains_in_channels_last(network, CPU))
    for _ in range(20):
        images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
        if last:
            images = images.contiguous(memory_format=torch.channels_last)
        for each, x in ((trainee, images), (exact, images.double().contiguous())):
            each.zero_grad()
            F.cross_entropy(each(x), labels).backward()
        for mine, theirs in zip(network.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_narrow_networks_are_trained(make_dataset, precision):
    network = models.create("resnet8_w0.25", in_channels=1, num_classes=2)
    options = TrainOptions(epochs=1, batch_size=8, device="cpu", precision=precision)
    fit(network, make_dataset(), AT(PGD(eps=0.1, steps=2)), options)
    assert all(weight.isfinite().all() for weight in network.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_narrow_network_is_trained_compiled():
    """The compiler puts maps in channels-last order by itself, which ended the process or gave wrong gradients."""
    torch.manual_seed(0)
    network = models.create("resnet8_w0.25").train()
    exact = copy.deepcopy(network).double()
    trainee = Trainee(network, "fp32", True, 16, channels_last=False)
    for _ in range(20):
        images, labels = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
        for each, x in ((trainee, images), (exact, images.double())):
            each.zero_grad()
            F.cross_entropy(each(x), labels).backward()
        for mine, theirs in zip(network.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-2, atol=1e-4)

"""What is measured on: networks, images and sizes, in full on a GPU and in miniature for a trial on a CPU."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import nn

from robustmaps import data, models
from robustmaps.data import Dataset


@dataclass(frozen=True)
class Network:
    """A network by name, with its strides and the factor of its inputs."""

    name: str
    strides: str
    upsample: int = 1

    @property
    def label(self) -> str:
        """As it is written in tables."""
        return f"{self.name} {self.strides}" + (f" x{self.upsample}" if self.upsample > 1 else "")


@dataclass(frozen=True)
class Setting:
    """How large everything is.

    Attributes:
        device: what is measured.
        dataset: real images.
        work: the folder for working files.
        base: the network that is trained, shrunk and upsampled.
        shrunk: it with smaller strides.
        wide: a larger one, for speed alone.
        architectures: the names whose views are compared with the plain network.
        side: the side of the images that they are compared on, in pixels.
        batches: the batch sizes whose speed is measured.
        compiled: how many architectures are also compiled.
        epochs: of each training.
        seeds: of the comparison.
        images: test images that are attacked.
        verdicts: test images that GPU and CPU are compared on.
        steps: of the training attack.
        rounds: timings of each row.
        smoke: whether this is the miniature.
    """

    device: torch.device
    dataset: Dataset
    work: Path
    base: Network
    shrunk: Network
    wide: Network
    architectures: tuple[str, ...]
    side: int
    batches: tuple[int, ...]
    compiled: int
    epochs: int
    seeds: int
    images: int
    verdicts: int
    steps: int
    rounds: int
    smoke: bool

    @property
    def upsampled(self) -> Network:
        """The base network with inputs upsampled by 2."""
        return Network(self.base.name, self.base.strides, 2)

    @property
    def eps(self) -> float:
        """The budget in l_inf."""
        return 0.15 if self.dataset.in_channels == 1 else 8 / 255

    def make(self, network: Network, *, seed: int = 0) -> nn.Module:
        """The network for these images, untrained, on the device."""
        torch.manual_seed(seed)
        return models.create(
            network.name,
            strides=network.strides,
            upsample=network.upsample,
            num_classes=self.dataset.num_classes,
            in_channels=self.dataset.in_channels,
            mean=self.dataset.mean,
            std=self.dataset.std,
        ).to(self.device)

    def flops(self, network: Network) -> int:
        """Operations of a forward pass of one image."""
        return _flops(self, network)


@cache
def _flops(setting: Setting, network: Network) -> int:
    height, width = setting.dataset.image_size
    image = torch.empty(1, setting.dataset.in_channels, height, width, device="meta")
    here = replace(setting, device=torch.device("cpu"))
    return models.measure_cost(here.make(network).to("meta"), image).flops


def full(spec: str, device: torch.device, work: Path) -> Setting:
    """The published question: ResNet-18 on CIFAR-10, 5,000 training images held out."""
    dataset = data.load(spec, validation=5_000, cache_dir=work / "data")
    # Those of the comparison first: time may end before the last.
    first = ("resnet18", "preactresnet18", "vgg16_bn", "alexnet", "wrn28_10")
    others = tuple(name for name in models.names() if name not in first)
    return Setting(
        device,
        dataset,
        work,
        base=Network("resnet18", "1222"),
        shrunk=Network("resnet18", "1122"),
        wide=Network("wrn28_10", "122"),
        architectures=(*first, *others),
        side=32,
        batches=(512, 128, 1024),
        compiled=len(first) + len(others),
        epochs=30,
        seeds=2,
        images=1_000,
        verdicts=200,
        steps=10,
        rounds=10,
        smoke=False,
    )


def miniature(spec: str | None, device: torch.device, work: Path) -> Setting:
    """Every step in two minutes on two cores: that it works, not what it gives."""
    dataset = data.load(spec or "digits", cache_dir=work / "data")
    return Setting(
        device,
        dataset,
        work,
        base=Network("resnet8", "122"),
        shrunk=Network("resnet8", "112"),
        wide=Network("resnet20", "122"),
        architectures=("resnet8", "alexnet", "vgg11_bn"),
        side=32,
        batches=(32,),
        compiled=1,
        epochs=1,
        seeds=1,
        images=40,
        verdicts=20,
        steps=2,
        rounds=2,
        smoke=True,
    )

"""The theory's networks: convolutions with ReLU, a global pool and a linear read-out, with random or given weights."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.models import UPSAMPLE_MODES, align_corners

Pool = Literal["average", "max"]


@dataclass(frozen=True)
class Toy:
    """The shape of a theory network, and the budget of its perturbations.

    >>> Toy(stride=4, upsample=2).positions, Toy(stride=4, upsample=2).effective_stride
    (256, 2.0)

    Attributes:
        pool: the pool over the last map.
        stride: total stride of all convolutions; with several, a power of 2 spread over the last ones.
        upsample: upsampling factor of the image.
        upsample_mode: one of `models.UPSAMPLE_MODES`.
        kernel: side of the convolutions.
        depth: number of convolutions.
        channels: channels of each convolution.
        in_channels: channels of the image.
        image_px: side of the image.
        norm: the budget's norm.
        eps: the budget's radius, in units of images in [0, 1].
        linear: omit the ReLUs.
        circular: wrap images around, so that all pixels are equivalent, instead of padding with zeros.
    """

    pool: Pool = "average"
    stride: int = 1
    upsample: int = 1
    upsample_mode: str = "nearest"
    kernel: int = 5
    depth: int = 1
    channels: int = 16
    in_channels: int = 3
    image_px: int = 32
    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    linear: bool = False
    circular: bool = False

    def __post_init__(self) -> None:
        for name in ("stride", "upsample", "kernel", "depth", "channels", "in_channels", "image_px"):
            check_whole(name, getattr(self, name), 1)
        for name, choices in (("pool", ("average", "max")), ("norm", ("linf", "l2"))):
            if getattr(self, name) not in choices:
                raise unknown(name, getattr(self, name), choices)
        if self.upsample_mode not in UPSAMPLE_MODES:
            raise unknown("upsample mode", self.upsample_mode, UPSAMPLE_MODES)
        check_eps(self.eps, self.norm)
        if self.image_px * self.upsample % self.stride:
            raise InputError(f"stride={self.stride}: expected a divisor of {self.image_px * self.upsample}")
        if self.depth > 1 and self.stride not in [2**power for power in range(self.depth + 1)]:
            raise InputError(
                f"stride={self.stride}: expected a power of 2 up to {2**self.depth} for {self.depth} layers"
            )

    @property
    def map_px(self) -> int:
        """Side of the last map."""
        return self.image_px * self.upsample // self.stride

    @property
    def positions(self) -> int:
        """Pixels of the last map: n."""
        return self.map_px**2

    @property
    def effective_stride(self) -> float:
        """Distance in image pixels between the fields of neighbours in the last map, at least 1."""
        return max(self.stride / self.upsample, 1.0)

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each convolution."""
        if self.depth == 1:
            return (self.stride,)
        twos = self.stride.bit_length() - 1
        return (1,) * (self.depth - twos) + (2,) * twos

    def to_dict(self) -> dict[str, Any]:
        """The fields and derived values, ready for JSON."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**given, "positions": self.positions, "effective_stride": self.effective_stride}


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one network.

    Attributes:
        kernels: (out, in, k, k) of each convolution.
        biases: (out,) of each convolution, or None for zero.
        readout: the read-out (channels,).
    """

    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    readout: Tensor


def random_weights(toy: Toy, generator: torch.Generator) -> Weights:
    """Independent Gaussian taps and a read-out of length 1.

    The taps' standard deviation is ``1 / sqrt(fan in)`` for a single layer, and ``sqrt(2 / fan in)`` for several, which
    keeps the scale of the maps.
    """
    kernels = []
    for layer in range(toy.depth):
        inputs = toy.in_channels if layer == 0 else toy.channels
        taps = torch.randn(toy.channels, inputs, toy.kernel, toy.kernel, generator=generator)
        kernels.append(taps * tap_deviation(toy, inputs))
    readout = torch.randn(toy.channels, generator=generator)
    return Weights(tuple(kernels), (None,) * toy.depth, readout / readout.norm())


def tap_deviation(toy: Toy, inputs: int) -> float:
    """The standard deviation of random taps in a layer with ``inputs`` channels."""
    return math.sqrt((1 if toy.depth == 1 else 2) / (inputs * toy.kernel**2))


class ToyNetwork(nn.Module):
    """One number per image (N,): the read-out of the pooled last map.

    Args:
        toy: the network's shape.
        weights: matching weights.
    """

    def __init__(self, toy: Toy, weights: Weights) -> None:
        super().__init__()
        if len(weights.kernels) != toy.depth:
            raise InputError(f"{len(weights.kernels)} kernels: expected {toy.depth}, one per layer")
        self.toy = toy
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """The read-out of images (N, C, H, W)."""
        toy = self.toy
        if toy.upsample > 1:
            mode = toy.upsample_mode
            x = F.interpolate(x, scale_factor=toy.upsample, mode=mode, align_corners=align_corners(mode))
        for kernel, bias, stride in zip(self.weights.kernels, self.weights.biases, toy.strides, strict=True):
            side = kernel.shape[-1]
            before, after = (side - 1) // 2, side // 2
            x = F.pad(x, (before, after, before, after), mode="circular" if toy.circular else "constant")
            x = F.conv2d(x, kernel, bias, stride)
            x = x if toy.linear else x.relu()
        pooled = x.mean((2, 3)) if toy.pool == "average" else x.amax((2, 3))
        value: Tensor = pooled @ self.weights.readout
        return value


def predicted_gain(toy: Toy) -> float | None:
    """The theory's prediction for one layer with ReLU and random weights (robustmaps explain theory), if it makes one.

    For max pooling it is an upper estimate, which assumes that patches don't overlap, and only without upsampling.
    """
    if toy.depth > 1 or toy.linear or toy.stride > toy.kernel or toy.upsample_mode not in ("nearest", "area"):
        return None
    deviation = tap_deviation(toy, toy.in_channels)
    inputs, side, stride = toy.in_channels, toy.kernel, toy.effective_stride
    if toy.pool == "average":
        if toy.norm == "linf":
            return inputs * toy.eps * deviation * side * stride / math.sqrt(math.pi)
        return toy.eps * deviation * side * stride * math.sqrt(inputs / 2) / toy.image_px
    if toy.upsample > 1:
        return None
    taps = inputs * side**2
    if toy.norm == "l2":
        return toy.eps * deviation * math.sqrt(taps)
    length = math.sqrt(2 * toy.channels / math.pi)  # the sum of absolute values of a Gaussian read-out of length 1
    return toy.eps * length * taps * deviation * math.sqrt(2 / math.pi)

"""A network that takes pixels: normalisation and upsampling are layers before the body."""

import math
from collections.abc import Sequence

import torch
import torch.fx
from torch import nn

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import check_at_least
from robustmaps.models._choices import UPSAMPLE_MODES, align_corners
from robustmaps.models._maps import FinalPooling, dry_run, smallest_side_px


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel, with fixed values that are part of the network's state.

    Attributes:
        mean, std: buffers (C, 1, 1).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        """Defaults to mean 0 and standard deviation 1, which leaves images unchanged.

        Raises:
            InputError: there is not one finite number per channel, or a standard deviation is not positive.
        """
        super().__init__()
        self.register_buffer("mean", _per_channel("mean", mean, channels, default=0.0))
        self.register_buffer("std", _per_channel("std", std, channels, default=1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, C, H, W).

        Raises:
            InputError: the number of channels differs.
        """
        _check_channels(x, len(self.mean))
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """Mean and standard deviation of each channel."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Network(nn.Module):
    """Logits (N, classes) of images (N, C, H, W) in [0, 1].

    Attributes:
        normalize: the normalisation per channel.
        upsample: enlarges the normalised images; the identity for factor 1.
        body: the classifier.
    """

    def __init__(self, normalize: Normalize, upsample: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.upsample = upsample
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, C, H, W).

        Raises:
            InputError: the number of channels differs, or the images are too small for the network.
        """
        enlarged = self.upsample(self.normalize(x))
        try:
            logits: torch.Tensor = self.body(enlarged)
        except RuntimeError as error:
            least_px = smallest_side_px(nn.Sequential(self.upsample, self.body), x.shape[1])
            if least_px is None or least_px <= min(x.shape[2:]):
                raise
            raise InputError(
                f"images of {x.shape[2]}x{x.shape[3]} px: the maps shrink below one pixel; expected at least "
                f"{least_px}x{least_px} px, or a network with smaller strides or a larger upsample factor"
            ) from error
        return logits


def feature_map_size(network: Network, image_size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) of the feature map before the final pooling, for images of size (H, W).

    Only shapes are computed, so it takes milliseconds for any width and device.

    Raises:
        InputError: the images are too small, or the network neither pools nor flattens a map.
    """
    with FinalPooling() as pooling:
        dry_run(network, (2, len(network.normalize.mean), *image_size))
    size: tuple[int, int] | None = pooling.map_size
    if size is None:
        raise InputError(
            f"{type(network.body).__name__} neither pools nor flattens a map; expected a network with a final map"
        )
    return size


def upsampling(factor: float, mode: str) -> nn.Module:
    """The layer that enlarges images by a factor of at least 1 with one of `UPSAMPLE_MODES`.

    Raises:
        InputError: the factor is below 1 or the mode unknown.
    """
    check_at_least("upsample", factor, 1)
    if mode not in UPSAMPLE_MODES:
        raise unknown("upsample mode", mode, UPSAMPLE_MODES)
    if factor == 1:
        return nn.Identity()
    return nn.Upsample(scale_factor=factor, mode=mode, align_corners=align_corners(mode))


def _per_channel(name: str, values: Sequence[float] | None, channels: int, default: float) -> torch.Tensor:
    numbers = [default] * channels if values is None else [float(value) for value in values]
    if len(numbers) != channels or not all(map(math.isfinite, numbers)) or (name == "std" and min(numbers) <= 0):
        kind = "positive" if name == "std" else "finite"
        raise InputError(f"{name}={values!r}: expected {channels} {kind} numbers, one per channel")
    return torch.tensor(numbers).view(channels, 1, 1)


@torch.fx.wrap  # a symbolic trace can't branch on a shape, so it keeps the check as one call
def _check_channels(x: torch.Tensor, channels: int) -> None:
    if x.ndim != 4 or x.shape[1] != channels:
        raise InputError(f"images of shape {tuple(x.shape)}: expected (N, {channels}, H, W)")

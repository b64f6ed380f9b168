"""Augmentation of a whole batch at once, on its own device."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_whole


@dataclass(frozen=True, eq=False)
class Part:
    """The images of a batch that a process works on; random draws are made for all, so that they belong to the images.

    Attributes:
        total: images of the batch.
        rows: those that are here, int64, (n,), ascending.
    """

    total: int
    rows: Tensor

    @classmethod
    def whole(cls, images: Tensor) -> "Part":
        """All images of a batch."""
        return cls(len(images), torch.arange(len(images), device=images.device))


@dataclass(frozen=True)
class Augmentation:
    """A random crop of the reflect-padded image, and a horizontal flip of every second one on average.

    Nothing is really padded: a padded, cropped and flipped image is the original read at other rows and columns, so the
    batch is gathered once by row and once by column.

    Attributes:
        pad: the largest shift in each direction, in pixels; below the image's height and width.
        flip: mirror images left to right with probability 1/2.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_whole("pad", self.pad, 0)

    @classmethod
    def recommended(cls, channels: int, height: int, width: int, flip: bool | None = None) -> "Augmentation":
        """Shifts of an eighth of the image (4 pixels at 32 x 32, 1 at 8 x 8), and flips for colour images.

        Grey images are mostly digits, letters and scans, whose mirror images mean something else or nothing; ``flip``
        overrides this.
        """
        return cls(pad=min(height, width) // 8, flip=channels == 3 if flip is None else flip)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"pad": self.pad, "flip": self.flip}

    def __str__(self) -> str:
        done = [f"shifted by up to {self.pad} px"] * (self.pad > 0) + ["mirrored"] * self.flip
        return " and ".join(done) or "used as they are"

    def __call__(self, images: Tensor, generator: torch.Generator, part: Part | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, C, H, W), of any type.
            generator: on the device of the images.
            part: which part of a batch they are, if they are not the whole.

        Returns:
            A batch of the same shape and type; the same tensor if there is nothing to do.

        Raises:
            InputError: ``pad`` is not smaller than the image.
        """
        part = part or Part.whole(images)
        height, width = images.shape[2:]
        if self.pad >= min(height, width):
            raise InputError(f"pad={self.pad}: must be smaller than the image, which is {height} x {width}")
        device = images.device
        if self.pad:
            shift = torch.randint(-self.pad, self.pad + 1, (2, part.total, 1), generator=generator, device=device)
            shift = shift[:, part.rows]
            rows = _reflect(torch.arange(height, device=device) + shift[0], height)
            columns = _reflect(torch.arange(width, device=device) + shift[1], width)
            images = images.gather(2, rows[:, None, :, None].expand(images.shape))
        else:
            columns = torch.arange(width, device=device).expand(len(images), width)
        if self.flip:
            mirrored = torch.randint(0, 2, (part.total, 1), generator=generator, device=device)[part.rows] == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.pad or self.flip:
            images = images.gather(3, columns[:, None, None, :].expand(images.shape))
        return images


# Attempts to draw a crop that lies within the image before it is clipped; at least half of all draws do.
_TRIES = 10


@dataclass(frozen=True)
class ResizedCrop:
    """A crop of random area and aspect ratio, resized to a square (arXiv 1409.4842, section 6), and a random flip.

    Each image has its own crop; the whole batch is resampled in one bilinear operation.

    Attributes:
        size: side of the result, in pixels.
        flip: mirror images left to right with probability 1/2.
        scale: smallest and largest area of the crop, as a share of the image's; drawn uniformly.
        ratio: smallest and largest width over height; its logarithm is drawn uniformly.
    """

    size: int
    flip: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        for name, (low, high), most in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < low <= high <= most:
                raise InputError(f"{name}=({low:g}, {high:g}): expected two rising numbers above 0, at most {most:g}")

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"resized_crop": self.size, "flip": self.flip, "scale": list(self.scale), "ratio": list(self.ratio)}

    def __str__(self) -> str:
        low, high = (100 * share for share in self.scale)
        flipped = ", mirrored" if self.flip else ""
        return f"cropped to {low:g} to {high:g} % of their area{flipped} and resized to {self.size} x {self.size}"

    def __call__(self, images: Tensor, generator: torch.Generator, part: Part | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, C, H, W), bytes or floats.
            generator: on the device of the images.
            part: which part of a batch they are, if they are not the whole.

        Returns:
            (B, C, size, size) of the same type; bytes are rounded.
        """
        part = part or Part.whole(images)
        batch, channels, _, _ = images.shape
        width, height, left, top = self._boxes(images, generator, part)
        if self.flip:
            mirrored = torch.randint(0, 2, (part.total,), generator=generator, device=images.device)[part.rows] == 1
            width = torch.where(mirrored, -width, width)
            left = torch.where(mirrored, left - width, left)
        # Maps positions in the result to positions in the image, both from -1 to 1 between the outer edges.
        theta = torch.zeros(batch, 2, 3, device=images.device)
        theta[:, 0, 0], theta[:, 0, 2] = width, 2 * left + width - 1
        theta[:, 1, 1], theta[:, 1, 2] = height, 2 * top + height - 1
        grid = F.affine_grid(theta, [batch, channels, self.size, self.size], align_corners=False)
        crops = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return crops.to(images.dtype) if images.is_floating_point() else crops.round_().to(images.dtype)

    def _boxes(
        self, images: Tensor, generator: torch.Generator, part: Part | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Width, height, left and top of each crop, as shares of the image's sides, (B,) each."""
        part = part or Part.whole(images)
        batch, (rows, columns) = part.total, images.shape[2:]

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=images.device)

        low, high = self.scale
        area = low + (high - low) * uniform(_TRIES, batch)
        low, high = (math.log(value) for value in self.ratio)
        ratio = (low + (high - low) * uniform(_TRIES, batch)).exp() * (rows / columns)
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        first = ((width <= 1) & (height <= 1)).byte().argmax(0, keepdim=True)
        width, height = (side.gather(0, first)[0].clamp(max=1) for side in (width, height))
        left, top = uniform(batch) * (1 - width), uniform(batch) * (1 - height)
        return width[part.rows], height[part.rows], left[part.rows], top[part.rows]


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect positions outside 0..size-1 at the image's edge pixels."""
    last = size - 1
    return last - (last - index.abs()).abs()

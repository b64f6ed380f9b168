"""Augmentation of a whole batch at once, on whichever device it is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmaps.engine.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """A random crop of the reflect-padded image, and a horizontal flip of every second one.

    Nothing is padded or copied for it: a padded, cropped, flipped image is the original read at other rows and
    columns, so the batch is gathered once by row and once by column.

    Attributes:
        pad: the largest shift in each direction, in pixels; below the image's height and width.
        flip: whether images are mirrored left to right with probability 1/2.
    """

    pad: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            raise InputError(f"pad={self.pad!r}: expected a number of pixels of at least 0")

    @classmethod
    def recommended(cls, channels: int, height: int, width: int, flip: bool | None = None) -> "Augmentation":
        """Shifts of an eighth of the image (4 pixels at 32 x 32, 1 at 8 x 8), flips for colour images.

        Grey sets are mostly digits, letters and scans, whose mirror image is another thing or nothing at all; ``flip``
        says otherwise.
        """
        return cls(pad=min(height, width) // 8, flip=channels == 3 if flip is None else flip)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch.

        Args:
            images: (B, C, H, W), of any type.
            generator: on the device of the images.

        Returns:
            A batch of the same shape and type; the given one when there is nothing to do.

        Raises:
            InputError: ``pad`` is not smaller than the image.
        """
        batch, _, height, width = images.shape
        if self.pad >= min(height, width):
            raise InputError(f"pad={self.pad}: must be smaller than the image, which is {height} x {width}")
        device = images.device
        if self.pad:
            shift = torch.randint(-self.pad, self.pad + 1, (2, batch, 1), generator=generator, device=device)
            rows = _reflect(torch.arange(height, device=device) + shift[0], height)
            columns = _reflect(torch.arange(width, device=device) + shift[1], width)
            images = images.gather(2, rows[:, None, :, None].expand(images.shape))
        else:
            columns = torch.arange(width, device=device).expand(batch, width)
        if self.flip:
            mirrored = torch.randint(0, 2, (batch, 1), generator=generator, device=device) == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self.pad or self.flip:
            images = images.gather(3, columns[:, None, None, :].expand(images.shape))
        return images


def _reflect(index: Tensor, size: int) -> Tensor:
    """Fold positions outside 0..size-1 back inside, as if the image's edge pixels were mirrors."""
    last = size - 1
    return last - (last - index.abs()).abs()

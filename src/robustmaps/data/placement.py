"""The place of the training images during training: on the device, or streamed from their files."""

from dataclasses import dataclass, replace

import torch

from robustmaps.data.sets import Dataset, Extra, ImageSet
from robustmaps.engine.memory import free_bytes


@dataclass(frozen=True, eq=False)
class Placed:
    """Training images where training reads them.

    Attributes:
        train: the training images.
        extra: the extra images, if any.
        streamed: whether they stay in their files and are read batch by batch.
    """

    train: ImageSet
    extra: Extra | None
    streamed: bool


def place(data: Dataset, device: torch.device, memory_share: float) -> Placed:
    """Move the training images to a device if they fit in a share of its free memory.

    Args:
        data: the data set, whose ``train`` and ``extra`` are moved.
        device: the device of the training.
        memory_share: the largest share of free memory that they may take, in [0, 1]; 0 always streams.
    """
    free = free_bytes(device)
    sets = [data.train] if data.extra is None else [data.train, data.extra.images]
    needed = sum(images.images.numel() for images in sets)
    # If the free memory is unknown, only a share of 0 streams.
    if needed > (needed * bool(memory_share) if free is None else free * memory_share):
        return Placed(data.train, data.extra, streamed=True)
    extra = data.extra and replace(data.extra, images=data.extra.images.to(device))
    return Placed(data.train.to(device), extra, streamed=False)

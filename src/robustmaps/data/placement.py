"""Where the training images lie while a network is trained: on its device, or in the file they are streamed from."""

from dataclasses import dataclass, replace

import torch

from robustmaps.data.sets import Dataset, Extra, ImageSet
from robustmaps.engine.memory import free_bytes


@dataclass(frozen=True, eq=False)
class Placed:
    """Training images at the place that training reads them from.

    Attributes:
        train: the training images.
        extra: the extra images, None where there are none.
        streamed: whether they stay in their files and are read batch by batch.
    """

    train: ImageSet
    extra: Extra | None
    streamed: bool


def place(data: Dataset, device: torch.device, memory_share: float) -> Placed:
    """Move the training images to a device if they take no more than a share of its free memory.

    Args:
        data: their ``train`` and ``extra``.
        device: where the network is trained.
        memory_share: the share of free memory that they may take, in [0, 1]; with 0 they are always streamed.
    """
    free = free_bytes(device)
    sets = [data.train] if data.extra is None else [data.train, data.extra.images]
    needed = sum(images.images.numel() for images in sets)
    # Where nobody says how much memory is free, only a share of 0 streams.
    if needed > (needed * bool(memory_share) if free is None else free * memory_share):
        return Placed(data.train, data.extra, streamed=True)
    extra = data.extra and replace(data.extra, images=data.extra.images.to(device))
    return Placed(data.train.to(device), extra, streamed=False)

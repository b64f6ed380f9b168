"""Mean and standard deviation of the pixels per channel."""

import torch
from torch import Tensor

# In bytes: a fixed number of images would take half a gigabyte at 144 x 144 pixels.
_CHUNK_BYTES = 1 << 24


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation per channel, in units of images in [0, 1].

    The sums are exact integers. The deviation of a constant channel is given as 1, so that dividing by it is safe.

    Args:
        images: uint8, (N, C, H, W), possibly a memory map: they are read in chunks.
    """
    channels = images.shape[1]
    total = torch.zeros(channels, dtype=torch.int64)
    squares = torch.zeros(channels, dtype=torch.int64)
    rows = max(_CHUNK_BYTES // images.shape[1:].numel(), 1)
    for start in range(0, len(images), rows):
        chunk = images[start : start + rows]
        total += chunk.sum((0, 2, 3), dtype=torch.int64)
        squares += chunk.to(torch.int32).square_().sum((0, 2, 3), dtype=torch.int64)
    count = images.numel() // channels
    mean = total.double() / count
    std = (squares.double() / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 0, std, 255.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())

"""How much of the image counts for a pixel of a map, by the gradients that reach the image."""

import torch
from torch import Tensor


def gradient_energy(centres: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """The squared gradient that each pixel of the image gets from one pixel of a map, summed up, shape (H, W).

    Args:
        centres: the pixel's channels for each image (N, C), with their graph.
        x: the images (N, channels, H, W) that they were computed from.
        directions: weights of the channels (K, C); each is followed back.
    """
    energy = torch.zeros(x.shape[2:], device=x.device)
    for direction in directions:
        (gradient,) = torch.autograd.grad((centres @ direction).sum(), x, retain_graph=True)
        energy += gradient.square().sum((0, 1))
    return energy


def effective_field_px(energy: Tensor, share: float = 0.95) -> int:
    """The side of the smallest square that holds a share of the energy, in pixels; 0 where there is none.

    The effective receptive field of arXiv 1701.04128 is a blob that falls off like a Gaussian and is smaller than the
    theoretical one; the square makes a length of it that both can be compared by.

    Args:
        energy: (H, W), not negative.
        share: in (0, 1].
    """
    total = float(energy.double().sum())
    if total <= 0:
        return 0
    sums = torch.nn.functional.pad(energy.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    height, width = energy.shape
    for side in range(1, max(height, width) + 1):
        down, right = min(side, height), min(side, width)
        windows = sums[down:, right:] - sums[:-down, right:] - sums[down:, :-right] + sums[:-down, :-right]
        if float(windows.max()) >= share * total * (1 - 1e-9):
            return side
    return max(height, width)

"""The effective receptive field of a map's pixel, from its gradient at the image."""

import torch
from torch import Tensor

from robustmaps.engine.finite import finite_gradient


def gradient_energy(centres: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """The squared gradient of one pixel of a map at each pixel of the image, summed, shape (H, W).

    Args:
        centres: the pixel's channels for each image (N, C), with their graph.
        x: the images (N, channels, H, W) that they were computed from.
        directions: weights of the channels (K, C), each with its own backward pass.
    """
    energy = torch.zeros(x.shape[2:], device=x.device)
    for direction in directions:
        (gradient,) = torch.autograd.grad((centres @ direction).sum(), x, retain_graph=True)
        energy += finite_gradient(gradient)[0].square().sum((0, 1))
    return energy


def effective_field_px(energy: Tensor, share: float = 0.95) -> int:
    """The side in pixels of the smallest square with a share of the energy; 0 without any energy.

    The effective receptive field (arXiv 1701.04128) is Gaussian-shaped and smaller than the theoretical one; the
    square's side makes both comparable.

    Args:
        energy: (H, W), non-negative.
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

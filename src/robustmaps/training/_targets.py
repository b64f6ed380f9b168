"""Training targets: smoothed labels, and images mixed with their labels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothed(y: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Labels (N,) as probabilities (N, K), with a share spread evenly over all classes (arXiv 1512.00567)."""
    return F.one_hot(y, num_classes) * (1 - smoothing) + smoothing / num_classes


def cutmix(x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Replace a box of each image by that of another image of the batch (Yun et al., arXiv 1905.04899, section 3).

    Every image has its own box, whose share of the area is uniform in [0, 1] before it is clipped at the border.

    Args:
        x: images (N, C, H, W).
        y: labels (N,).
        generator: on the device of the images.

    Returns:
        The mixed images, the labels (N,) of the images in the boxes, and the remaining share (N,) of each image.
    """
    n, _, height, width = x.shape
    other = torch.randperm(n, generator=generator, device=x.device)
    side = torch.rand(n, generator=generator, device=x.device).sqrt()
    inside = torch.ones(n, 1, 1, dtype=torch.bool, device=x.device)
    for size, shape in ((height, (1, -1, 1)), (width, (1, 1, -1))):
        centre = torch.rand(n, generator=generator, device=x.device) * size
        away = (torch.arange(size, device=x.device) + 0.5)[None] - centre[:, None]
        inside = inside & (away.abs() < side[:, None] * size / 2).view(n, *shape[1:])
    return torch.where(inside[:, None], x[other], x), y[other], 1 - inside.float().mean((1, 2))

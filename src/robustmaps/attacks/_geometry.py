"""Norms, balls and steps of batches (N, C, H, W), sample by sample."""

from typing import Any

import torch
from torch import Tensor

from robustmaps.engine.ranks.sharing import by_image

# Below this length a float32 vector has no direction; such samples get no step instead of NaN.
_TINY = 1e-12


def norms(delta: Tensor, norm: str) -> Tensor:
    """The l_inf, l2 or l1 norm of each sample, shape (N,)."""
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    result: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return result


def project(x: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """Project ``x`` onto the ball of radius ``eps`` around ``clean``, then clip to [0, 1].

    Clipping never leaves the ball, since its centre is in [0, 1]. For l1 this is the exact projection onto the
    intersection, without which l1 attacks lose much of their budget (arXiv 2103.01208).
    """
    if norm == "linf":
        return torch.clamp(x, (clean - eps).clamp_(min=0.0), (clean + eps).clamp_(max=1.0))
    delta = x - clean
    if norm == "l1":
        return (clean + _shrink_l1(delta, clean, eps)).clamp_(0.0, 1.0)
    return (clean + shrink(delta, eps, norm)).clamp_(0.0, 1.0)


def shrink(delta: Tensor, eps: float, norm: str) -> Tensor:
    """Project perturbations onto the l_inf or l2 ball of radius ``eps``."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * per_image((eps / norms(delta, "l2").clamp(min=_TINY)).clamp(max=1.0))


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The direction of unit norm in which a linear function with this gradient rises most."""
    if norm == "linf":
        return gradient.sign()
    # Divide by the largest entry first: squares of gradients below 1e-23 would vanish in float32.
    scaled = gradient / per_image(gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny))
    return scaled / per_image(norms(scaled, "l2").clamp(min=_TINY))


def uniform_in_ball(like: Tensor, eps: float, norm: str, generator: torch.Generator | None) -> Tensor:
    """Perturbations drawn uniformly from the ball of radius ``eps``, in the shape of ``like``."""
    if norm == "linf":
        return by_image(like, lambda whole: torch.empty_like(whole).uniform_(-eps, eps, generator=generator), generator)
    direction = by_image(like, lambda whole: torch.empty_like(whole).normal_(generator=generator), generator)
    dimensions = direction[0].numel()
    kind: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
    radius = by_image(like[:, 0, 0, 0], lambda whole: torch.rand(whole.shape, **kind, generator=generator), generator)
    radius = radius ** (1 / dimensions)
    return direction * per_image(eps * radius / norms(direction, "l2").clamp(min=_TINY))


def on_sphere(like: Tensor, eps: float, norm: str, generator: torch.Generator | None) -> Tensor:
    """Random perturbations of norm ``eps``: uniform noise for l_inf, Gaussian for l2 and l1."""
    if norm == "linf":
        noise = by_image(
            like, lambda whole: torch.empty_like(whole).uniform_(-1.0, 1.0, generator=generator), generator
        )
    else:
        noise = by_image(like, lambda whole: torch.empty_like(whole).normal_(generator=generator), generator)
    return noise * per_image(eps / norms(noise, norm).clamp(min=_TINY))


def per_image(values: Tensor) -> Tensor:
    """Reshape one value per sample, (N,), to (N, 1, 1, 1), which multiplies images."""
    return values[:, None, None, None]


def _shrink_l1(delta: Tensor, clean: Tensor, eps: float) -> Tensor:
    """Shrink entries by one threshold per sample, within the box (arXiv 2103.01208, proposition 2.1).

    The norm of the result is piecewise linear in the threshold, with kinks where an entry reaches zero or leaves the
    box. Going through the sorted kinks until the norm reaches ``eps`` gives the exact threshold.
    """
    size = delta.abs().flatten(1).double()
    room = torch.where(delta > 0, 1.0 - clean, clean).flatten(1).double()
    kinks, order = torch.cat([size, size - room], dim=1).sort(dim=1, descending=True)
    entering = torch.ones_like(size)
    # Entries that shrink as the threshold rises past each kink, and the norm at each kink.
    active = torch.cat([entering, -entering], dim=1).gather(1, order).cumsum(1)
    norm = torch.nn.functional.pad((active[:, :-1] * (kinks[:, :-1] - kinks[:, 1:])).cumsum(1), (1, 0))
    reached = (norm < eps).sum(1, keepdim=True).clamp_(1, norm.shape[1]) - 1
    at = [values.gather(1, reached) for values in (kinks, norm, active)]
    threshold = (at[0] - (eps - at[1]) / at[2].clamp(min=1.0)).clamp_(min=0.0)
    shrunk = torch.minimum((size - threshold).clamp_(min=0.0), room).view_as(delta)
    return torch.copysign(shrunk.to(delta.dtype), delta)

"""Norms, balls and steps of batches (N, C, H, W); every function works sample by sample."""

import torch
from torch import Tensor

# Below this length a vector has no direction in float32; such samples get no step instead of a NaN.
_TINY = 1e-12


def norms(delta: Tensor, norm: str) -> Tensor:
    """The l_inf, l2 or l1 norm of each sample, shape (N,)."""
    order = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}[norm]
    result: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    return result


def project(x: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """The images nearest to ``x`` that lie in the ball of radius ``eps`` around ``clean``, then clipped to [0, 1].

    Clipping comes last and never leaves the ball, since the centre lies in [0, 1].
    """
    if norm == "linf":
        return torch.clamp(x, (clean - eps).clamp_(min=0.0), (clean + eps).clamp_(max=1.0))
    delta = x - clean
    factor = (eps / norms(delta, "l2").clamp(min=_TINY)).clamp(max=1.0)
    return (clean + delta * factor[:, None, None, None]).clamp_(0.0, 1.0)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The direction of unit norm along which a linear function with this gradient rises most."""
    if norm == "linf":
        return gradient.sign()
    # Divided by the largest entry first: squares of gradients below 1e-23 would vanish in float32.
    scaled = (
        gradient / gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)[:, None, None, None]
    )
    return scaled / norms(scaled, "l2").clamp(min=_TINY)[:, None, None, None]


def uniform_in_ball(like: Tensor, eps: float, norm: str, generator: torch.Generator | None) -> Tensor:
    """Perturbations drawn uniformly from the ball of radius ``eps``, in the shape of ``like``."""
    if norm == "linf":
        return torch.empty_like(like).uniform_(-eps, eps, generator=generator)
    direction = torch.empty_like(like).normal_(generator=generator)
    dimensions = direction[0].numel()
    radius = torch.rand(len(like), device=like.device, dtype=like.dtype, generator=generator) ** (1 / dimensions)
    return direction * (eps * radius / norms(direction, "l2").clamp(min=_TINY))[:, None, None, None]

"""Networks whose best attacks are known in closed form, slow references, and peers to compare with."""

from typing import Any

import numpy as np
import torch
import torchattacks
from scipy.optimize import linprog
from torch import Tensor, nn

PEER_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class TwoPlanes(nn.Module):
    """Logits (f, -f) of an affine function f, scaled so that cross-entropy stays far from saturation."""

    def __init__(self, pixels: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Buffer(torch.randn(pixels, generator=generator) / pixels**0.5)
        self.bias = nn.Buffer(torch.randn((), generator=generator) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1) @ self.weight + self.bias
        return torch.stack([value, -value], dim=1)

    def value(self, x: Tensor) -> Tensor:
        return self(x)[:, 0].detach()


def images(count: int, *, low: float = 0.0, high: float = 1.0, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 1, 6, 6, generator=generator)


def shortest(network: TwoPlanes, x: Tensor, norm: str) -> Tensor:
    """The norm of the smallest perturbation within [0, 1] that reaches the boundary, (N,), by slow means."""
    weight = network.weight.detach().double().numpy()
    lengths = [
        _shortest(weight, float(value), image.double().numpy(), norm)
        for value, image in zip(network.value(x), x.flatten(1), strict=True)
    ]
    return torch.tensor(lengths, dtype=x.dtype)


def lowest_value(network: TwoPlanes, x: Tensor, norm: str, eps: float) -> Tensor:
    """How far |f| can fall, beyond zero too, within the l_inf or l1 ball and the box, (N,); a linear program."""
    signs = network.value(x).sign().double().numpy()
    weight = network.weight.detach().double().numpy()
    lowest = []
    for sign, image in zip(signs, x.flatten(1).double().numpy(), strict=True):
        change = _solve(sign * weight, image, norm, eps=eps)
        lowest.append(sign * (weight @ image + float(network.bias)) + change)
    return torch.tensor(lowest, dtype=x.dtype)


def _shortest(weight: np.ndarray, value: float, image: np.ndarray, norm: str) -> float:
    """A linear program for l_inf and l1, bisection over the multiplier for l2."""
    slope, pixels = np.sign(value) * weight, len(weight)
    if norm == "l2":
        room = np.where(slope > 0, image, 1 - image)
        low, high = 0.0, 1e4
        for _ in range(200):
            middle = (low + high) / 2
            reached = abs(slope) @ np.minimum(middle * abs(slope), room)
            low, high = (middle, high) if reached < abs(value) else (low, middle)
        return float(np.linalg.norm(np.minimum(high * abs(slope), room)))
    # Unknowns: the positive and the negative part of the perturbation, and the largest entry.
    bounds = [(0, 1 - p) for p in image] + [(0, p) for p in image] + [(0, 1)]
    crosses = np.concatenate([slope, -slope, [0.0]])[None]
    below = np.hstack([np.eye(2 * pixels), -np.ones((2 * pixels, 1))])
    cost = np.zeros(2 * pixels + 1)
    cost[slice(-1, None) if norm == "linf" else slice(0, -1)] = 1.0
    limits = np.concatenate([[-abs(value)], np.zeros(2 * pixels)])
    return float(linprog(cost, A_ub=np.vstack([crosses, below]), b_ub=limits, bounds=bounds).fun)


def _solve(slope: np.ndarray, image: np.ndarray, norm: str, eps: float) -> float:
    """The least ``<slope, delta>`` in the ball and the box; delta is the difference of two positive parts."""
    bounds = [(0, 1 - p) for p in image] + [(0, p) for p in image]
    if norm == "linf":
        bounds = [(0, min(high, eps)) for _, high in bounds]
        return float(linprog(np.concatenate([slope, -slope]), bounds=bounds).fun)
    total = np.ones((1, 2 * len(slope)))
    return float(linprog(np.concatenate([slope, -slope]), A_ub=total, b_ub=[eps], bounds=bounds).fun)


def peer_autoattack(model: nn.Module, norm: str, eps: float, classes: int) -> list[Any]:
    """The stages of torchattacks' AutoAttack with the published 100 steps; its own default is 10."""
    whole = torchattacks.AutoAttack(model, norm=PEER_NORMS[norm], eps=eps, n_classes=classes, seed=0)
    for stage in whole._autoattack.attacks:
        if hasattr(stage, "steps"):
            stage.steps = 100
    return list(whole._autoattack.attacks)


def broken(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1) != y

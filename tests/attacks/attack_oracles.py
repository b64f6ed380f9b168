"""Networks whose best attacks are known in closed form, slow references, and the peers to compare with."""

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
        self.weight = nn.Parameter(torch.randn(pixels, generator=generator) / pixels**0.5)
        self.bias = nn.Parameter(torch.randn((), generator=generator) * 0.1)

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
    return torch.tensor(lengths)


def lowest_value(network: TwoPlanes, x: Tensor, norm: str, eps: float) -> Tensor:
    """How far |f| can fall, beyond zero too, within the l_inf or l1 ball and the box, (N,); a linear program."""
    signs = network.value(x).sign().double().numpy()
    weight = network.weight.detach().double().numpy()
    lowest = []
    for sign, image in zip(signs, x.flatten(1).double().numpy(), strict=True):
        change = _solve(sign * weight, image, norm, eps=eps)
        lowest.append(sign * (weight @ image + float(network.bias)) + change)
    return torch.tensor(lowest)


def _shortest(weight: np.ndarray, value: float, image: np.ndarray, norm: str) -> float:
    """Bisection over the radius for l_inf and l1, over the multiplier for l2."""
    slope = np.sign(value) * weight
    room = np.where(slope > 0, image, 1 - image)
    if norm == "l2":
        low, high = 0.0, 1e4
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if abs(slope) @ np.minimum(middle * abs(slope), room) < abs(value) else (low, middle)
            )
        return float(np.linalg.norm(np.minimum(high * abs(slope), room)))
    low, high = 0.0, float(len(weight))
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if abs(value) + _solve(slope, image, norm, eps=middle) > 0 else (low, middle)
    return high


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

"""The perturbation gain: the largest change of a network's output within a budget.

To first order it is exact by duality: ``max <grad f, d>`` over ``|d| <= eps`` is ``eps`` times the dual norm of the
gradient. Projected gradient descent shows how well the first order holds.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.engine.errors import NoGradientError, unknown
from robustmaps.engine.finite import finite_gradient
from robustmaps.engine.numbers import check_eps

Function = Callable[[Tensor], Tensor]
"""From images (N, C, H, W) to one number per image (N,), independent of the batch's other images."""

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
"""The order of the budget's dual norm."""


def first_order_gain(function: Function, x: Tensor, *, eps: float, norm: str = "linf") -> Tensor:
    """The first-order gain of a function, ``eps * |grad f|`` in the dual norm, shape (N,).

    >>> first_order_gain(lambda x: 3 * x.flatten(1).sum(1), torch.zeros(1, 1, 2, 2), eps=0.1).item()
    1.2000000476837158

    Args:
        function: a differentiable function.
        x: images (N, C, H, W).
        eps: radius of the ball, in units of images in [0, 1]; the bounds 0 and 1 are ignored.
        norm: ``linf``, ``l2`` or ``l1``.

    Raises:
        InputError: the norm is unknown or the radius invalid.
        NoGradientError: the function can't be differentiated.
    """
    check_norm(norm)
    check_eps(eps, norm)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = function(x).sum()
        if not value.requires_grad:
            raise NoGradientError
        gradient: torch.Tensor | None
        try:
            (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
        except RuntimeError:  # as reentrant checkpoints raise, which take part in backward passes to all leaves only
            x = x.detach().requires_grad_()
            function(x).sum().backward()  # type: ignore[no-untyped-call]
            gradient = x.grad
        if gradient is None:
            raise NoGradientError
    return eps * dual_norm(finite_gradient(gradient)[0], norm)


def reached_gain(function: Function, x: Tensor, *, eps: float, norm: str = "linf", steps: int = 20) -> Tensor:
    """The gain of a function within the ball and [0, 1] by projected gradient descent, shape (N,).

    Args:
        function: a differentiable function.
        x: images (N, C, H, W) in [0, 1].
        eps: radius of the ball.
        norm: ``linf`` or ``l2``.
        steps: gradient steps, starting at the image itself, so that the result is not random.
    """
    attack = PGD(norm=norm, eps=eps, steps=steps, loss="margin", start="none")  # type: ignore[arg-type]
    x_adv = attack(_AsClassifier(function), x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    with torch.no_grad():
        gained: Tensor = function(x_adv) - function(x)
    return gained


def dual_norm(gradient: Tensor, norm: str) -> Tensor:
    """The dual norm of each sample of (N, ...), shape (N,)."""
    result: Tensor = torch.linalg.vector_norm(gradient.flatten(1), ord=DUAL[norm], dim=1)
    return result


def check_norm(norm: str) -> None:
    """Refuse an unknown norm."""
    if norm not in DUAL:
        raise unknown("norm", norm, DUAL)


class _AsClassifier(nn.Module):
    """Logits (0, f): the margin loss for label 0 is ``f``, so that attacks can maximise any function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        value = self.function(x)
        return torch.stack([torch.zeros_like(value), value], dim=1)

"""Adversarial weight perturbation, which wraps any defence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.defenses._base import Loss, Minimax, ReplayingDefense
from robustmaps.defenses._schedule import at
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import statistics_kept
from robustmaps.engine.numbers import check_at_least
from robustmaps.engine.ranks.sharing import Share, add_up, weight_of
from robustmaps.engine.view import AttackView

_TINY = 1e-20


@dataclass(frozen=True)
class AWP:
    """Train at adversarially perturbed weights (Wu, Xia & Wang, arXiv 2004.05884, algorithm 1).

    Each weight with at least two dimensions (convolutions, linear layers) is moved along the gradient of the inner
    defence's loss by ``gamma`` times its norm. The loss and its gradient are computed there; then the weights are
    restored exactly, even after an exception. Only the second pass updates batch-norm statistics.

    Attributes:
        defense: the wrapped defence.
        gamma: relative size of the perturbation; the papers use 0.01 for AT and 0.005 for TRADES.
        warmup: the share of training without perturbation; the released code uses 10 of 200 epochs for TRADES.
    """

    defense: Minimax[Any]
    gamma: float = 0.01
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("gamma", self.gamma, 0)
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup={self.warmup!r}: expected a share of training in [0, 1), such as 10/200")
        if not isinstance(self.defense, Minimax) or isinstance(self.defense, ReplayingDefense):
            raise InputError(
                f"AWP({getattr(self.defense, 'name', self.defense)!r}): expected a defence that makes its examples "
                "before its loss, such as AT() or TRADES()"
            )

    @property
    def name(self) -> str:
        """The inner defence's name and ``-awp``."""
        return f"{self.defense.name}-awp"

    @property
    def attack(self) -> Attack | None:
        """The inner defence's attack."""
        return self.defense.attack

    @property
    def single_step(self) -> bool:
        """Whether the inner defence's attack is a single step."""
        return getattr(self.defense, "single_step", False)

    def at(self, progress: float) -> "AWP | Minimax[Any]":
        """The defence after this share of the training."""
        inner = at(self.defense, progress)
        return inner if progress < self.warmup else replace(self, defense=inner)

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        targets: Tensor | None = None,
        view: AttackView | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """The inner defence's loss at the perturbed weights; see `Defense.loss`.

        The gradient is computed here, while the weights are perturbed; ``backward`` of the value only passes it on.

        Raises:
            InputError: the network has no trainable weight to perturb.
        """
        examples = self.defense.inner(view or model, x, y, generator)
        parameters = [p for p in model.parameters() if p.requires_grad]
        weights = [p for p in parameters if p.dim() > 1]
        if not weights:
            raise InputError(
                f"{self.name}: the network has no weights to perturb; expected a trainable one with two dimensions"
            )
        with statistics_kept(model):
            first = self.defense.climbed(model, x, examples, y, targets)
        # Ranks move their weights alike, by the gradient of the whole batch. Losses are weighted before they are
        # differentiated, since batch-norms may pass gradients from rank to rank.
        share = weight_of(generator)
        uphill = torch.autograd.grad(first * share, weights, allow_unused=True)
        if isinstance(generator, Share):
            add_up(g for g in uphill if g is not None)
        moves = _moves(weights, uphill, self.gamma)
        with _moved(weights, moves):
            second = self.defense.outer(model, x, examples, y, targets)
            found = torch.autograd.grad(second.value * share, parameters, allow_unused=True)
        gradients = tuple(g if g is None or share in (0, 1) else g / share for g in found)
        value: Tensor = _HandOver.apply(second.value.detach(), gradients, *parameters)  # type: ignore[no-untyped-call]
        return replace(second, value=value)


def _moves(weights: Sequence[Tensor], gradients: Sequence[Tensor | None], gamma: float) -> list[Tensor | None]:
    with torch.no_grad():
        return [
            None if g is None else g * (gamma * w.norm() / g.norm().clamp(min=_TINY))
            for w, g in zip(weights, gradients, strict=True)
        ]


@contextmanager
def _moved(weights: Sequence[Tensor], moves: Sequence[Tensor | None]) -> Iterator[None]:
    before = [w.detach().clone() for w in weights]
    try:
        with torch.no_grad():
            for weight, move in zip(weights, moves, strict=True):
                if move is not None:
                    weight.add_(move)
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


class _HandOver(torch.autograd.Function):
    """A value whose gradient with respect to the parameters is already known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:  # noqa: ARG004
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if g is None else g * grad for g in ctx.gradients)

"""What a defence is: a loss to train with."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class Loss:
    """What a defence made of one batch.

    Attributes:
        value: the scalar to minimise, differentiable with respect to the network's parameters.
        clean_correct: how many samples the network got right as they are, None where it did not see them.
        robust_correct: how many it got right under the training attack, None where there was none.
    """

    value: Tensor
    clean_correct: Tensor | None = None
    robust_correct: Tensor | None = None


@runtime_checkable
class Defense(Protocol):
    """A frozen value whose ``loss`` is minimised by the training loop."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def attack(self) -> Attack | None:
        """The attack made during training; None where there is none."""
        ...

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        view: AttackView | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """The training loss of a batch.

        Args:
            model: the network, in the mode it is trained in.
            x: images (N, C, H, W) in [0, 1].
            y: labels (N,).
            view: what to attack; None attacks the network itself.
            generator: for the attack's random draws.
        """
        ...


def count_correct(logits: Tensor, y: Tensor) -> Tensor:
    """How many rows have their largest logit at the label; a tensor, so that no device has to wait."""
    return (logits.detach().argmax(1) == y).sum()

"""Training without an attack."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class Standard(Minimax[Tensor]):
    """Cross-entropy on clean images: the baseline that is accurate but not robust."""

    name = "standard"
    attack = None

    def inner(
        self,
        model: nn.Module | AttackView,  # noqa: ARG002
        x: Tensor,
        y: Tensor,  # noqa: ARG002
        generator: torch.Generator | None,  # noqa: ARG002
    ) -> Tensor:
        """The images themselves."""
        return x

    def outer(self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, targets: Tensor | None = None) -> Loss:  # noqa: ARG002
        """Mean cross-entropy of the batch."""
        logits = network_logits(model, x)
        return Loss(cross_entropy(logits, y, targets), clean_correct=count_correct(logits, y))


ROW = DefenseRow(
    name="standard",
    summary="no attack: the baseline that is accurate but not robust",
    kind=Standard,
)

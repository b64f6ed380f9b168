"""Training without an attack."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.defenses._base import Loss, count_correct
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are: the baseline that is accurate and not robust."""

    name = "standard"
    attack = None

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        view: AttackView | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> Loss:
        """Mean cross-entropy of the batch; see `Defense.loss`."""
        logits = model(x)
        return Loss(F.cross_entropy(logits.float(), y), clean_correct=count_correct(logits, y))

"""Adversarial training."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import PGD, Attack
from robustmaps.defenses._base import Loss, count_correct
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class AT:
    """Cross-entropy on adversarial examples of the batch (Madry et al., arXiv 1706.06083, equation 2.1).

    Attributes:
        attack: the inner maximisation; by default l_inf PGD with eps 8/255 and 10 steps of 2/255.
    """

    attack: Attack = field(default_factory=PGD)

    name = "at"

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        view: AttackView | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """Mean cross-entropy at the attacked images; see `Defense.loss`."""
        x_adv = self.attack(view or model, x, y, generator=generator)
        logits = model(x_adv)
        return Loss(F.cross_entropy(logits.float(), y), robust_correct=count_correct(logits, y))

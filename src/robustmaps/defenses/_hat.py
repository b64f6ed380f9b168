"""Helper-based adversarial training."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from robustmaps.attacks import PGD, Attack
from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy, kl_divergence
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import predictions
from robustmaps.engine.numbers import check_at_least
from robustmaps.engine.view import AttackView, plain_view


@dataclass(frozen=True)
class HAT(Minimax[tuple[Tensor, Tensor, Tensor]]):
    """TRADES plus cross-entropy at helper examples (Rade & Moosavi-Dezfooli, openreview BuD2LmNaU3a).

    A helper example is ``reach`` times as far away as the adversarial one, and labelled by a standardly trained network
    at the adversarial image. Helper examples keep margins from growing more than robustness requires.

    Attributes:
        helper: a network trained without an attack, from images in [0, 1] to logits; it is not trained here.
        attack: as in TRADES.
        beta: weight of the divergence.
        gamma: weight of the helper examples.
        reach: distance of the helper examples, in units of the adversarial perturbation.
    """

    helper: nn.Module = field(repr=False)
    attack: Attack = field(default_factory=lambda: PGD(loss="kl", start="normal"))
    beta: float = 2.5
    gamma: float = 0.5
    reach: float = 2.0

    name = "hat"

    def __post_init__(self) -> None:
        for name in ("beta", "gamma", "reach"):
            check_at_least(name, getattr(self, name), 0)

    def inner(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adversarial images and helper examples (N, C, H, W), and labels (N,) of the latter."""
        x_adv = self.attack(model, x, y, generator=generator)
        with torch.no_grad(), plain_view(self.helper.to(x.device)) as helper:
            labels = predictions(helper(x_adv))
        if bool((labels < 0).any()):
            raise InputError("helper: its logits are NaN or infinite; expected a network that did not diverge")
        # Not clipped to [0, 1], as in the released code: the label belongs to the direction, not to an image.
        return x_adv, x + self.reach * (x_adv - x), labels

    def outer(
        self,
        model: nn.Module,
        x: Tensor,
        examples: tuple[Tensor, Tensor, Tensor],
        y: Tensor,
        targets: Tensor | None = None,
    ) -> Loss:
        """The loss at clean, adversarial and helper images."""
        x_adv, x_help, y_help = examples
        clean, adversarial, helped = (network_logits(model, images) for images in (x, x_adv, x_help))
        value = (
            cross_entropy(clean, y, targets)
            + self.beta * kl_divergence(adversarial, clean).mean()
            + self.gamma * cross_entropy(helped, y_help, None)
        )
        return Loss(value, count_correct(clean, y), count_correct(adversarial, y))


ROW = DefenseRow(
    name="hat",
    title="HAT",
    summary="TRADES with a helper network that was trained without an attack (openreview BuD2LmNaU3a)",
    kind=HAT,
    attack=partial(PGD, loss="kl", start="normal"),
    parameters={
        "steps": "steps of the training attack (default: 10)",
        "step_size": "length of a step (default: 2.5 * eps / steps)",
        "beta": "weight of the divergence (default: 2.5)",
        "helper": "run folder or weights file of a network that was trained with --defense standard",
    },
    networks=("helper",),
    awp_gamma=0.005,
)

"""DAJAT: diverse augmentations with a joint loss, the strongest recipe without extra data for 18-layer networks."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.defenses._augment import strongly_augmented
from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy, kl_divergence
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.modes import statistics_kept
from robustmaps.engine.numbers import check_at_least, check_whole
from robustmaps.engine.view import AttackView, plain_view

# The released code plans 2 to 5 steps, but its last condition, 5 steps of half the budget, overrides the others.
_STEPS = 5
_STEP_LENGTH = 0.5
_LEAST = 1e-7


@dataclass(frozen=True)
class DAJAT(Minimax[tuple[tuple[Tensor, Tensor], ...]]):
    """Diverse augmentation-based joint adversarial training, adapted (Addepalli et al., arXiv 2210.15318).

    The mean TRADES loss of the simply augmented batch and strongly augmented copies of it, plus the Jensen-Shannon
    divergence of their clean predictions. The budget grows linearly over the run. The paper adds AWP (gamma 0.005),
    averaged weights (0.9996), a learning rate of 0.2 with a cosine schedule, and 200 epochs.

    Unlike the released code, strong augmentation is TrivialAugment after the simple augmentation, not AutoAugment on
    the original image. Strongly augmented images are normalised by their own, unrecorded batch statistics instead of
    separate batch-norm layers, and attacked in evaluation mode.

    Attributes:
        attack: norm and full budget of the attack, which makes 5 steps of half the current budget.
        beta: weight of the divergence in each TRADES loss.
        copies: number of strongly augmented copies of the batch.
        consistency: weight of the Jensen-Shannon divergence.
        progress: the completed share of the training.
    """

    attack: PGD = field(default_factory=PGD)
    beta: float = 11.0
    copies: int = 2
    consistency: float = 2.0
    progress: float = 1.0

    name = "dajat"

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)
        check_at_least("consistency", self.consistency, 0)
        check_whole("copies", self.copies, 0)

    def at(self, progress: float) -> "DAJAT":
        """The defence after this share of the training."""
        return replace(self, progress=progress)

    @property
    def present_attack(self) -> PGD:
        """The attack at this stage of training."""
        eps = self.attack.eps * max(self.progress, 1e-3)
        return PGD(self.attack.norm, eps, _STEPS, _STEP_LENGTH * eps, loss="kl", start="normal")

    def inner(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        """Pairs of clean and adversarial images (N, C, H, W), the simply augmented ones first."""
        attack = self.present_attack
        with plain_view(model) as view:
            clean = [x, *(strongly_augmented(x, generator) for _ in range(self.copies))]
            return tuple((images, attack(view, images, y, generator=generator)) for images in clean)

    def climbed(
        self,
        model: nn.Module,
        x: Tensor,  # noqa: ARG002 - it is the first of the examples
        examples: tuple[tuple[Tensor, Tensor], ...],
        y: Tensor,
        targets: Tensor | None = None,
    ) -> Tensor:
        """The TRADES loss of only the simply augmented images, as in the released code."""
        x_base, x_adv = examples[0]
        return self._trades(network_logits(model, x_base), network_logits(model, x_adv), y, targets)

    def outer(
        self,
        model: nn.Module,
        x: Tensor,  # noqa: ARG002 - it is the first of the examples
        examples: tuple[tuple[Tensor, Tensor], ...],
        y: Tensor,
        targets: Tensor | None = None,
    ) -> Loss:
        """The joint loss."""
        (x_base, x_adv), *copies = examples
        clean, adversarial = network_logits(model, x_base), network_logits(model, x_adv)
        losses = [self._trades(clean, adversarial, y, targets)]
        predictions = [clean.softmax(1)]
        with statistics_kept(model):
            for images, attacked in copies:
                logits = network_logits(model, images)
                losses.append(self._trades(logits, model(attacked).float(), y, targets))
                predictions.append(logits.softmax(1))
        value = torch.stack(losses).mean()
        if copies:
            value = value + self.consistency * _jensen_shannon(torch.stack(predictions))
        return Loss(value, count_correct(clean, y), count_correct(adversarial, y))

    def _trades(self, clean: Tensor, adversarial: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        return cross_entropy(clean, y, targets) + self.beta * kl_divergence(adversarial, clean).mean()


def _jensen_shannon(p: Tensor) -> Tensor:
    """Divergence of M distributions (M, N, K) from their mixture, averaged over samples."""
    mixture = p.mean(0, keepdim=True).clamp(min=_LEAST)
    return (p * (p.clamp(min=_LEAST).log() - mixture.log())).sum(2).mean()


ROW = DefenseRow(
    name="dajat",
    title="DAJAT",
    summary="diverse augmentations with a joint loss (arXiv 2210.15318)",
    kind=DAJAT,
    attack=PGD,
    parameters={"beta": "weight of the divergence (default: 11)"},
    fixed_steps=_STEPS,
    awp_gamma=0.005,
)

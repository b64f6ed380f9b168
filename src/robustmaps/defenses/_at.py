"""Adversarial training, and the variants that differ only in the attack."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, Attack, NoiseFGSM, shrink, steepest
from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import finite_gradient
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.view import AttackView


class CrossEntropyAtExamples(Minimax[Tensor]):
    """Cross-entropy at adversarial images."""

    attack: Attack

    def inner(self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Adversarial images, in the shape of ``x``."""
        return self.attack(model, x, y, generator=generator)

    def outer(self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, targets: Tensor | None = None) -> Loss:  # noqa: ARG002
        """Mean cross-entropy at the adversarial images."""
        logits = network_logits(model, examples)
        return Loss(cross_entropy(logits, y, targets), robust_correct=count_correct(logits, y))


@dataclass(frozen=True)
class AT(CrossEntropyAtExamples):
    """Cross-entropy on adversarial examples of the batch (Madry et al., arXiv 1706.06083, equation 2.1).

    Attributes:
        attack: the inner maximisation (default: l_inf PGD with eps 8/255 and 10 steps of 2/255).
    """

    attack: Attack = field(default_factory=PGD)

    name = "at"


@dataclass(frozen=True)
class FastAT(CrossEntropyAtExamples):
    """Adversarial training with one step from a random start (Wong et al., arXiv 2001.03994, algorithm 3).

    It is prone to catastrophic overfitting, robustness against its single step only, which training watches for.

    Attributes:
        attack: one step from a uniform start (default length: 1.25 times ``eps``).

    Raises:
        InputError: the attack has several steps.
    """

    attack: PGD = field(default_factory=lambda: PGD(steps=1))

    name = "fast-at"
    single_step = True

    def __post_init__(self) -> None:
        if self.attack.steps != 1:
            raise InputError(f"FastAT with steps={self.attack.steps}: expected PGD(steps=1); use AT for several steps")
        if self.attack.step_size is None:
            object.__setattr__(self, "attack", replace(self.attack, step_size=1.25 * self.attack.eps))


@dataclass(frozen=True)
class NFGSM(CrossEntropyAtExamples):
    """Adversarial training with one step from strong noise, without projection (de Jorge et al., arXiv 2202.01181)."""

    attack: NoiseFGSM = field(default_factory=NoiseFGSM)

    name = "n-fgsm"
    single_step = True


@dataclass(frozen=True)
class FreeAT(CrossEntropyAtExamples):
    """Free adversarial training (Shafahi et al., arXiv 1904.12843, algorithm 1).

    Each batch is used for ``replays`` training steps. The gradient at the images, a by-product of each step, updates
    the perturbation, which carries over from batch to batch. An epoch costs as much as ``replays`` epochs of standard
    training, so the paper divides the number of epochs by it.

    Attributes:
        attack: the budget, and the length of a step (``eps`` in the paper).
        replays: training steps on each batch.
    """

    attack: FGSM = field(default_factory=FGSM)
    replays: int = 8

    name = "free-at"
    single_step = True

    def __post_init__(self) -> None:
        check_whole("replays", self.replays, 1)

    def replay(self, x: Tensor, carried: Tensor | None, step: Callable[[Tensor], None]) -> Tensor:
        """Train on a batch ``replays`` times.

        Args:
            x: images (N, C, H, W) in [0, 1].
            carried: the perturbations (M, C, H, W) of the batch before; None at first.
            step: trains on images and stores their gradient in ``grad``.

        Returns:
            The perturbations for the next batch.
        """
        # A smaller last batch updates only the first rows.
        delta = torch.zeros_like(x) if carried is None or len(carried) < len(x) else carried.clone()
        moving = delta[: len(x)]
        norm, eps = self.attack.norm, self.attack.eps
        for _ in range(self.replays):
            x_adv = (x + moving).clamp_(0.0, 1.0).requires_grad_()
            step(x_adv)
            if x_adv.grad is not None:
                moving.copy_(shrink(moving + eps * steepest(finite_gradient(x_adv.grad)[0], norm), eps, norm))
        return delta


_BUDGET = {
    "steps": "steps of the training attack (default: 10)",
    "step_size": "length of a step (default: 2.5 * eps / steps)",
}
ROWS = (
    DefenseRow(
        name="at",
        title="AT",
        summary="adversarial training (arXiv 1706.06083)",
        kind=AT,
        attack=PGD,
        parameters=_BUDGET,
        awp_gamma=0.01,  # arXiv 2004.05884, section 5: 0.01 for AT, 0.005 for TRADES
    ),
    DefenseRow(
        name="fast-at",
        title="Fast AT",
        summary="adversarial training with one step from a random start (arXiv 2001.03994)",
        kind=FastAT,
        attack=partial(PGD, steps=1),
        parameters={"step_size": "length of the step (default: 1.25 * eps)"},
        fixed_steps=1,
    ),
    DefenseRow(
        name="n-fgsm",
        title="N-FGSM",
        summary="adversarial training with one step from strong noise (arXiv 2202.01181)",
        kind=NFGSM,
        attack=NoiseFGSM,
        fixed_steps=1,
    ),
    DefenseRow(
        name="free-at",
        title="Free AT",
        summary="free adversarial training: each batch several times (arXiv 1904.12843)",
        kind=FreeAT,
        attack=FGSM,
        parameters={"replays": "steps on each batch (default: 8)"},
        fixed_steps=1,
    ),
)

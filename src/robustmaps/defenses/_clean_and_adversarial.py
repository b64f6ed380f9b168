"""Defences that balance clean and adversarial images: ALP, TRADES, MART."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import PGD, Attack
from robustmaps.defenses._base import Loss, Minimax, count_correct, cross_entropy, kl_divergence
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import unknown
from robustmaps.engine.numbers import check_at_least
from robustmaps.engine.view import AttackView

# Keeps the logarithm of MART's margin term finite if a wrong class has all the probability.
_CERTAIN = 1e-4


class _CleanAndAdversarial(Minimax[Tensor]):
    """A loss of both clean and adversarial logits."""

    attack: Attack

    def inner(self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """Adversarial images, in the shape of ``x``."""
        return self.attack(model, x, y, generator=generator)

    def outer(self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, targets: Tensor | None = None) -> Loss:
        """The loss of the batch, with separate passes for both kinds of images, so that batch-norms don't mix them."""
        clean, adversarial = network_logits(model, x), network_logits(model, examples)
        value = self._value(clean, adversarial, y, targets)
        return Loss(value, count_correct(clean, y), count_correct(adversarial, y))

    @abstractmethod
    def _value(self, clean: Tensor, adversarial: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        """The loss of the logits (N, K)."""


@dataclass(frozen=True)
class ALP(_CleanAndAdversarial):
    """Adversarial logit pairing (Kannan et al., arXiv 1803.06373).

    Cross-entropy at clean and adversarial images, plus ``beta`` times the mean squared difference of their logits.

    Attributes:
        attack: default: l_inf PGD with eps 8/255 and 10 steps of 2/255.
        beta: weight of the pairing (default: 0.5 as in arXiv 2202.12435).
    """

    attack: Attack = field(default_factory=PGD)
    beta: float = 0.5

    name = "alp"

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)

    def _value(self, clean: Tensor, adversarial: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        both = cross_entropy(clean, y, targets) + cross_entropy(adversarial, y, targets)
        masked = (clean == -float("inf")) & (adversarial == -float("inf"))  # the same, and no class to pair
        share = masked.numel() / (~masked).sum()
        return both + self.beta * share * F.mse_loss(clean.masked_fill(masked, 0), adversarial.masked_fill(masked, 0))


@dataclass(frozen=True)
class TRADES(_CleanAndAdversarial):
    """Clean cross-entropy plus ``beta`` times KL(clean || adversarial) (Zhang et al., arXiv 1901.08573, equation 5).

    As in the released code, the clean prediction is the reference, and both sides are differentiated.

    Attributes:
        attack: maximises the same divergence (default: l_inf, eps 8/255, 10 steps of 2/255 from a normal start).
        beta: weight of robustness against accuracy, 1 / lambda in the paper.
    """

    attack: Attack = field(default_factory=lambda: PGD(loss="kl", start="normal"))
    beta: float = 6.0

    name = "trades"

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)

    def _value(self, clean: Tensor, adversarial: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        return cross_entropy(clean, y, targets) + self.beta * kl_divergence(adversarial, clean).mean()


@dataclass(frozen=True)
class MART(_CleanAndAdversarial):
    """Misclassification-aware adversarial training (Wang et al., ICLR 2020, openreview rklOg6EFwS).

    Boosted cross-entropy at the adversarial images, ``CE - log(1 - largest wrong probability)``, plus ``beta`` times
    KL(clean || adversarial), weighted by one minus the probability of the true class at the clean image.

    The program of arXiv 2202.12435 computes another loss under this name: the boost without its logarithm,
    ``CE - (1 - largest wrong probability)``, the reverse divergence KL(adversarial || clean), and an attack from a
    uniform start.

    Attributes:
        attack: default, as in the released code: l_inf PGD with eps 8/255, 10 steps of 2/255 and a normal start.
        beta: weight of the divergence: lambda in the paper, which uses 5; the released code uses 6.
        form: ``authors`` for the loss of MART's paper and code, ``published`` for that of arXiv 2202.12435.
    """

    attack: Attack = field(default_factory=lambda: PGD(start="normal"))
    beta: float = 5.0
    # Left out of the text, which checkpoints that were written without it are compared with.
    form: Literal["authors", "published"] = field(default="authors", repr=False)

    name = "mart"

    def __post_init__(self) -> None:
        check_at_least("beta", self.beta, 0)
        if self.form not in ("authors", "published"):
            raise unknown("form", self.form, ["authors", "published"])
        if self.form == "published" and isinstance(self.attack, PGD):
            object.__setattr__(self, "attack", replace(self.attack, start="uniform"))

    def _value(self, clean: Tensor, adversarial: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
        right = 1 + _CERTAIN - adversarial.softmax(1).scatter(1, y[:, None], 0.0).amax(1)
        unsure = 1 - clean.softmax(1).gather(1, y[:, None]).squeeze(1)
        if self.form == "published":
            boost, divergence = right, kl_divergence(clean, adversarial)
        else:
            boost, divergence = torch.log(right), kl_divergence(adversarial, clean)
        return cross_entropy(adversarial, y, targets) - boost.mean() + self.beta * (divergence * unsure).mean()


ROWS = (
    DefenseRow(
        name="alp",
        title="ALP",
        summary="adversarial logit pairing (arXiv 1803.06373)",
        kind=ALP,
        attack=PGD,
        parameters={
            "steps": "steps of the training attack (default: 10)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "beta": "weight of the pairing (default: 0.5)",
        },
        awp_gamma=0.005,
    ),
    DefenseRow(
        name="trades",
        title="TRADES",
        summary="accuracy traded against a divergence (arXiv 1901.08573)",
        kind=TRADES,
        attack=partial(PGD, loss="kl", start="normal"),
        parameters={
            "steps": "steps of the training attack (default: 10)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "beta": "weight of the divergence (default: 6)",
        },
        awp_gamma=0.005,
    ),
    DefenseRow(
        name="mart",
        title="MART",
        summary="misclassification-aware adversarial training (openreview rklOg6EFwS)",
        kind=MART,
        attack=partial(PGD, start="normal"),
        parameters={
            "steps": "steps of the training attack (default: 10)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "beta": "weight of the divergence (default: 5)",
            "form": "loss of MART's authors, or published for that of arXiv 2202.12435 (default: authors)",
        },
        awp_gamma=0.005,
    ),
)

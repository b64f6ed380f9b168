"""What an attack climbs: one value per sample, larger where the network is more wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class AttackLoss:
    """A loss in two parts, so that what the clean images decide is computed once and can be indexed by sample.

    Attributes:
        target: from a view, clean images and labels (N,) to what the logits are compared with, first dimension N.
        value: from logits (N, K) and target to the loss per sample (N,).
    """

    target: Callable[[AttackView, Tensor, Tensor], Tensor]
    value: Callable[[Tensor, Tensor], Tensor]


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit minus the true one, shape (N,): positive exactly where the network is wrong."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -float("inf")).amax(1) - true


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _kl_divergence(logits: Tensor, clean_log_probabilities: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), clean_log_probabilities, reduction="none", log_target=True).sum(1)


def _labels(view: AttackView, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
    return y


def _clean_log_probabilities(view: AttackView, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
    return view(x).log_softmax(1)


LOSSES: dict[str, AttackLoss] = {
    # Cross-entropy with the true label (Madry et al., arXiv 1706.06083).
    "ce": AttackLoss(_labels, _cross_entropy),
    # KL(p(x) || p(x_adv)), which TRADES' attack climbs (arXiv 1901.08573); it looks at no label.
    "kl": AttackLoss(_clean_log_probabilities, _kl_divergence),
    # The logit margin of Carlini and Wagner (arXiv 1608.04644).
    "margin": AttackLoss(_labels, logit_margin),
}

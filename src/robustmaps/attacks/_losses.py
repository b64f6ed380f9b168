"""The losses that attacks maximise: one value per sample, larger for worse predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from robustmaps.engine.view import AttackView

Value = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and a target (first dimension N) to the loss per sample (N,)."""

# Keeps the ratio finite where all logits are equal.
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class AttackLoss:
    """A loss in two parts, so that everything about the clean images is computed once and indexed by sample.

    Attributes:
        target: from a view, clean images and labels (N,) to the target of the logits, first dimension N.
        value: from logits and target to the loss per sample.
    """

    target: Callable[[AttackView, Tensor, Tensor], Tensor]
    value: Value


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit minus the true one, shape (N,): positive exactly if the network is wrong."""
    true = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -float("inf")).amax(1) - true


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, invariant to rescaling the logits (arXiv 2003.01690, equation 6).

    It needs the third largest logit; with two classes the logit margin is used instead.
    """
    margin = logit_margin(logits, y)
    if logits.shape[1] < 3:
        return margin
    top = logits.topk(3, dim=1).values
    return margin / (top[:, 0] - top[:, 2] + _NO_SPREAD)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The difference of logits ratio towards one wrong class (arXiv 2003.01690, equation 7).

    It needs four classes: with three, the scale comes from the third alone; with two, it is the logit margin.
    """
    margin = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    if logits.shape[1] < 3:
        return margin
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    return margin / (top[:, 0] - top[:, 2:].mean(1) + _NO_SPREAD)


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` wrong classes with the largest logits, in descending order, shape (N, count)."""
    return logits.scatter(1, y[:, None], -float("inf")).topk(count, dim=1).indices


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _kl_divergence(logits: Tensor, clean_log_probabilities: Tensor) -> Tensor:
    return F.kl_div(logits.log_softmax(1), clean_log_probabilities, reduction="none", log_target=True).sum(1)


def _labels(view: AttackView, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
    # A copy, since autograd can't save labels that were made in inference mode.
    return y.clone()


def _clean_log_probabilities(view: AttackView, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG001
    return view(x).log_softmax(1)


LOSSES: dict[str, AttackLoss] = {
    # Cross-entropy with the true label (Madry et al., arXiv 1706.06083).
    "ce": AttackLoss(_labels, _cross_entropy),
    # KL(p(x) || p(x_adv)), the objective of TRADES' attack (arXiv 1901.08573), without labels.
    "kl": AttackLoss(_clean_log_probabilities, _kl_divergence),
    # The logit margin of Carlini and Wagner (arXiv 1608.04644).
    "margin": AttackLoss(_labels, logit_margin),
}

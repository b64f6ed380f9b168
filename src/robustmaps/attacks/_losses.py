"""The losses that attacks maximise: one value per sample, larger for worse predictions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.engine.finite import undecided
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
    """Largest other logit minus the true one, shape (N,): positive exactly if the network is wrong.

    Infinite where the logits are NaN, which is never right, or true and largest other logit are the same infinity.
    """
    true = logits.gather(1, y[:, None]).squeeze(1)
    margin = logits.scatter(1, y[:, None], -float("inf")).amax(1) - true
    return margin.masked_fill(undecided(logits.detach()), float("inf"))


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio, invariant to rescaling the logits (arXiv 2003.01690, equation 6).

    It needs the third largest logit; with two classes the logit margin is used instead. Classes masked with minus
    infinity don't count.
    """
    return logit_margin(logits, y) / _scale(logits, 3)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The difference of logits ratio towards one wrong class (arXiv 2003.01690, equation 7).

    It needs four classes: with three, the scale comes from the third alone; with two, it is the logit margin. Classes
    masked with minus infinity don't count.
    """
    margin = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    return margin / _scale(logits, 4)


def likeliest_wrong(logits: Tensor, y: Tensor, most: int) -> Tensor:
    """The wrong classes with the largest logits, in descending order, shape (N, count) with count <= ``most``.

    A class masked with minus infinity is no target: a row with fewer possible classes than others repeats its own.
    """
    others = logits.scatter(1, y[:, None], -float("inf"))
    possible = (others != -float("inf")).sum(1).clamp(min=1)
    count = min(most, int(possible.max()))
    ranked = others.topk(count, dim=1).indices
    return ranked.gather(1, torch.arange(count, device=y.device) % possible[:, None])


def possible_classes(logits: Tensor) -> Tensor:
    """The classes that some row of logits (N, K) does not mask with minus infinity, in order."""
    return (logits != -float("inf")).any(0).nonzero().squeeze(1)


def kl_divergence(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || other) of each row of log-probabilities (N, K), shape (N,).

    A class that the reference masks with minus infinity has no part in it, as its probability is zero.
    """
    masked = reference == -float("inf")
    there, here = reference.masked_fill(masked, 0.0), log_probabilities.masked_fill(masked, 0.0)
    return F.kl_div(here, there, reduction="none", log_target=True).sum(1)


def _scale(logits: Tensor, last: int) -> Tensor:
    """The largest logit minus the mean of the third to ``last``, (N,); 1 where fewer than three are not masked."""
    top = logits.topk(min(last, logits.shape[1]), dim=1).values
    rest = top[:, 2:]
    known = rest > -float("inf")
    third = torch.where(known, rest, 0.0).sum(1) / known.sum(1).clamp(min=1)
    return torch.where(known.any(1), top[:, 0] - third + _NO_SPREAD, 1.0)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _kl_divergence(logits: Tensor, clean_log_probabilities: Tensor) -> Tensor:
    return kl_divergence(logits.log_softmax(1), clean_log_probabilities)


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

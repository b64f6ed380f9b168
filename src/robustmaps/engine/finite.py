"""Logits and gradients that are NaN or infinite: one rule each, wherever a verdict or a step is computed.

Verdicts. NaN is never right: an image whose logits contain NaN is misclassified, whatever its label. So is an image
whose largest logit is infinite and shared by several classes (an overflow, or all classes masked with minus infinity).
A single largest logit decides, even if it is infinite, and minus infinity masks a class.

Gradients. NaN says nothing and counts as zero. An infinite entry has a sign: it counts as the largest finite entry of
its image's gradient, or as 1 if there is none, so that a step uses it and no image becomes NaN.
"""

import torch
from torch import Tensor


def undecided(logits: Tensor) -> Tensor:
    """Rows of logits (N, K) without a prediction, booleans (N,): NaN, or an infinite maximum of several classes."""
    largest = logits.amax(1)  # NaN where any entry is
    return ~largest.isfinite() & ~((logits == largest[:, None]).sum(1) == 1)


def predictions(logits: Tensor) -> Tensor:
    """The classes that logits (N, K) predict, (N,); -1, which is no label, where they are `undecided`."""
    return logits.argmax(1).masked_fill(undecided(logits), -1)


def is_right(logits: Tensor, y: Tensor) -> Tensor:
    """Whether logits (N, K) predict the labels (N,), booleans (N,); never where they are `undecided`."""
    return predictions(logits) == y


def finite_gradient(gradient: Tensor) -> tuple[Tensor, int]:
    """A gradient (N, ...) with finite entries only, and the number of images whose gradient had others."""
    # One pass over the entries; a sum that merely overflows is looked at more closely below.
    if bool(gradient.sum().isfinite()):
        return gradient, 0
    known = gradient.isfinite()
    flat = torch.where(known, gradient, 0.0).flatten(1).abs()
    largest = flat.amax(1)
    largest = torch.where(largest > 0, largest, 1.0).view(-1, *[1] * (gradient.dim() - 1))
    signed = torch.where(gradient.isnan(), torch.zeros_like(gradient), gradient.sign() * largest)
    return torch.where(known, gradient, signed), int((~known.flatten(1).all(1)).sum())


def largest_difference(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of two tensors' entries, a scalar; infinite if they are NaN or infinite at other places.

    NaN and infinities at the same places, as of classes masked with minus infinity, differ by nothing.
    """
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, a - b).abs().nan_to_num(torch.inf, torch.inf).max()


def largest_finite(values: Tensor) -> Tensor:
    """The largest magnitude among a tensor's finite entries, a scalar; 0 if there is none."""
    return torch.where(values.isfinite(), values, 0.0).abs().max()

"""Checks of the gradient itself: does it exist, and does it predict how the logits change?"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.attacks import logit_margin
from robustmaps.engine.finite import largest_finite
from robustmaps.engine.random import derive_seed, stream
from robustmaps.evaluation._checks._finding import Outcome, SkippedError, exceeds, percent
from robustmaps.evaluation._checks._subject import ROUNDING, CheckedNetwork, distance

# Below this fraction of the margin's gradient, cross-entropy's is about to underflow float32: a margin of 70. Networks
# trained without tricks had margins up to 14 (digits, CIFAR-10).
_VANISHING = 1e-30
_VANISHING_SHARE = 0.01
# The margin's gradient would have to be above 1e10 for this to vanish beside it.
_FAR_FROM_VANISHING = 1e-20

# Steps of finite differences, as fractions of eps. The gradient explained, at the better of both, at least 0.92 of them
# for networks trained without tricks (0.98 at 8/255), 0 behind rounding, below 0 behind a fast sine, and 0.07 and 0.58
# behind rounding to four levels with a straight-through gradient.
_LENGTHS = (1 / 8, 1 / 2)
EXPLAINED = 0.8
# Less than this in one direction at a few images is looked at more closely: one that left faint pixels out had 0.81.
CLEARLY = 0.9
# Over longer steps networks are too nonlinear for the gradient: at eps 1 it explained 0.79 for an honest one.
_MOST_STEP = 0.3
# Over shorter steps float32 rounds off more than changes.
_LEAST_STEP = 1e-4
_SEEN = 1e-3
_DIRECTIONS = 4
# Pixels without a gradient, and the effect of moving them relative to that of moving the others. Networks trained
# without tricks had at most 0.02 of them, of an effect of 0.01; behind a maximum of neighbours it was 0.3 and 0.2 to
# 0.4, behind thresholds at 0.05 to 0.2 0.5 and 0.3 to 1.5.
_FEW_UNSEEN, _LITTLE_UNSEEN = 0.05, 0.1
# Images at which single pixels are looked at, and the share of pixels at 0 and 1 that matters.
_PIXELS_OF, _FEW_AT_EDGES = 4, 0.05
_MOST = 64

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and labels (N,) to one value per image."""


def zero_gradients(subject: CheckedNetwork) -> Outcome:
    """Does the loss have a gradient at the images, in every pixel, and if not, is cross-entropy the cause?"""
    suspect, text = vanishing(subject)
    if not suspect and (blocked := blocked_at_edges(subject)):
        return Outcome(True, blocked)
    return Outcome(suspect, text)


def vanishing(subject: CheckedNetwork, *, quick: bool = False) -> Outcome:
    """Is the loss's gradient zero at the images, and is cross-entropy the cause?

    With ``quick``, the margin is left alone where cross-entropy's gradient is far from vanishing.
    """
    subject.require_attackable()
    rows = subject.correct
    entropy = torch.cat([_largest(subject, part, _cross_entropy) for part in torch.split(rows, subject.batch_size)])
    if quick and bool((entropy > _FAR_FROM_VANISHING).all()):
        return Outcome(False, "cross-entropy has a gradient")
    margin = torch.cat([_largest(subject, part, logit_margin) for part in torch.split(rows, subject.batch_size)])
    flat = int((margin == 0).sum())
    zero = int((entropy <= _VANISHING * margin).sum())
    gap = float(logit_margin(subject.clean[rows], subject.y[rows]).neg().median())
    if not exceeds(zero, len(rows), _VANISHING_SHARE):
        return Outcome(
            False, f"cross-entropy has a gradient at {len(rows) - zero} of {len(rows)} images; median margin {gap:.3g}"
        )
    if 2 * flat >= zero:
        return Outcome(True, f"the gradient is zero at {zero} of {len(rows)} images, whatever the loss")
    return Outcome(
        True,
        f"cross-entropy's gradient vanishes at {zero} of {len(rows)} images, the logit margin's at {flat}: the logits "
        f"are saturated, with a median margin of {gap:.3g}; attack the margin or DLR instead",
    )


def blocked_at_edges(subject: CheckedNetwork) -> str | None:
    """Pixels at exactly 0 or 1 whose gradient is zero there and not next to it, as behind a ReLU on the images.

    Gradient attacks then leave them as they are. None if there are no such pixels.
    """
    rows = subject.correct[:_PIXELS_OF]
    x, y = subject.x[rows], subject.y[rows]
    edge = (x == 0) | (x == 1)
    if float(edge.float().mean()) < _FEW_AT_EDGES:
        return None
    at, beside = (
        subject.gradient(images, lambda logits: logit_margin(logits, y)) != 0
        for images in (x, x.clamp(_LEAST_STEP, 1 - _LEAST_STEP))
    )
    blocked, total = int((edge & beside & ~at).sum()), int((edge & beside).sum())
    if 2 * blocked <= total:
        return None
    return (
        f"the gradient is zero at {percent(blocked, total)} of the pixels that are exactly 0 or 1, and not just inside "
        "[0, 1]: gradient attacks leave them as they are"
    )


def unseen_pixels(subject: CheckedNetwork) -> str | None:
    """Pixels whose gradient is zero although moving them within the budget changes the logits, as below a threshold.

    None if they are few or change little. A maximum over neighbours has such pixels, too: see `is_only_rugged`.
    """
    rows = subject.correct[:_PIXELS_OF]
    x, y = subject.x[rows], subject.y[rows]
    unseen = subject.gradient(x, lambda logits: logit_margin(logits, y)) == 0
    if float(unseen.float().mean()) < _FEW_UNSEEN:
        return None
    generator = stream(subject.seed, "unseen", device=x.device)
    size = subject.eps / per_pixel(subject.norm, x[0].numel())
    logits = subject.logits(x)
    before, moved = logit_margin(logits, y), []
    for pixels in (unseen, ~unseen):
        steps = (torch.empty_like(x).normal_(generator=generator).sign() * size * pixels for _ in range(_DIRECTIONS))
        changes = [logit_margin(subject.logits((x + step).clamp(0, 1)), y) - before for step in steps]
        moved.append(float(torch.stack(changes).square().mean().sqrt()))
    if moved[0] <= max(_LITTLE_UNSEEN * moved[1], ROUNDING * float(largest_finite(logits))):
        return None
    return (
        f"the gradient is zero at {percent(int(unseen.sum()), unseen.numel())} of the pixels, though moving these "
        f"within the budget changes the margin by {moved[0]:.2g} (moving the others: {moved[1]:.2g})"
    )


def _largest(subject: CheckedNetwork, rows: Tensor, loss: Loss) -> Tensor:
    """The largest entry of the loss's gradient at each image, (M,)."""
    y = subject.y[rows]
    gradient = subject.gradient(subject.x[rows], lambda logits: loss(logits, y))
    return gradient.flatten(1).abs().amax(1)


def explained(subject: CheckedNetwork, *, quick: bool = False) -> float:
    """R2 of the gradient for finite differences of the margin, in random directions at random points of the ball.

    With ``quick``, only short steps in a single direction.
    """
    rows = subject.correct
    if quick:
        return agreement(subject, rows, _LENGTHS[0], 1)
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), _MOST), device=rows.device).long()]
    probe = _Probe(subject, rows, 0)
    if distance(probe.logits(probe.start(0.0)), probe.logits(probe.start(0.0))) > ROUNDING:
        raise SkippedError("the network draws random numbers that PyTorch's seed does not control")
    # Longer steps hide jumps; they are needed only where rounding drowns shorter ones.
    lengths = _LENGTHS[:1] if probe.size * _LENGTHS[0] >= _SEEN else _LENGTHS
    return max(agreement(subject, rows, at) for at in lengths)


def agreement(subject: CheckedNetwork, rows: Tensor, length: float, directions: int = _DIRECTIONS) -> float:
    """R2 of the gradient at these images for steps of a fraction of eps."""
    return _agreement([_Probe(subject, rows, number) for number in range(directions)], length)


class _Probe:
    """A point near each image, a direction, and the change of the margin along it.

    All passes draw the same random numbers, so that a randomised network is compared with itself.
    """

    def __init__(self, subject: CheckedNetwork, rows: Tensor, number: int) -> None:
        self.subject = subject
        x = subject.x[rows]
        generator = stream(subject.seed, "probe", number, device=x.device)
        size = min(max(subject.eps / per_pixel(subject.norm, x[0].numel()), _LEAST_STEP), _MOST_STEP)
        self.step = torch.empty_like(x).normal_(generator=generator).sign() * size
        self.point = x + torch.empty_like(x).uniform_(-size, size, generator=generator)
        self.size = size
        self.y = subject.y[rows]
        self.seed = derive_seed(subject.seed, "probe", number)

    def start(self, length: float) -> Tensor:
        """The point, with room for ``length`` steps, since networks may clip images to [0, 1].

        With more room, what happens to pixels near black would not be seen.
        """
        edge = min(length * self.size, 0.5)
        return self.point.clamp(edge, 1 - edge)

    def logits(self, start: Tensor, length: float = 0.0) -> Tensor:
        """Logits at ``length`` steps from the start."""
        torch.manual_seed(self.seed)
        return self.subject.logits(start + length * self.step)

    def compare(self, length: float) -> tuple[Tensor, Tensor]:
        """The change of the margin to the strongest other class, actual and predicted by its gradient, each (M,)."""
        others: list[Tensor] = []

        def margin(logits: Tensor) -> Tensor:
            if not others:
                others.append(logits.detach().scatter(1, self.y[:, None], -float("inf")).argmax(1))
            return (logits.gather(1, others[0][:, None]) - logits.gather(1, self.y[:, None])).squeeze(1)

        start = self.start(length)
        torch.manual_seed(self.seed)
        gradient = self.subject.gradient(start, margin)
        moved = (margin(self.logits(start, length)) - margin(self.logits(start, -length))).double() / 2
        return moved, (gradient * length * self.step).flatten(1).sum(1).double()


def _agreement(probes: list[_Probe], length: float) -> float:
    """R2; zero if nothing changes."""
    pairs = [probe.compare(length) for probe in probes]
    moved, expected = (torch.cat(values) for values in zip(*pairs, strict=True))
    total, missed = float(moved.square().sum()), float((moved - expected).square().sum())
    return 1.0 - missed / total if total > 0 else 0.0


def per_pixel(norm: str, pixels: int) -> float:
    """The norm of a change by 1 in every pixel."""
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")

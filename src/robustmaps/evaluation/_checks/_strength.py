"""Checks by attack: does one attack find what a stronger one should have found?"""

import math

import torch
from torch import Tensor, nn

from robustmaps.attacks import Square
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.view import plain_view
from robustmaps.evaluation._checks._finding import Outcome, SkippedError, exceeds, percent
from robustmaps.evaluation._checks._subject import STEPS, CheckedNetwork

# For honest networks, all images were broken at half the range and at the whole range within 20 steps.
_LARGE_STEPS = 20
_LARGE_SHARE = 0.02

# A few steps, against the many of the gradient attacks. For honest networks, one step broke at most 2 of 164 images
# that many steps did not, and 80 more steps broke about 4 of 190; behind fast sines one step broke 36 to 78 of 190.
_FEW_STEPS = 20
_ALONE_SHARE = 0.02
_ROUGH_SHARE = 0.05

# For honest networks, Square with 500 or 1000 queries broke at most 3 of 190 images that the gradient attacks had left;
# behind rounding and sines it broke 22 to 164.
_QUERIES = 500
# Cross-entropy transferred 10 % better than the margin.
_TRANSFER_STEPS = 50
_OTHER_SHARE = 0.02


def large_eps(subject: CheckedNetwork) -> Outcome:
    """Does robust accuracy fall to zero as the budget grows?"""
    subject.require_attackable()
    rows = subject.correct
    half, whole = _half_and_whole(subject.norm, subject.x[0].numel())
    radii = [eps for eps in (2 * subject.eps, 4 * subject.eps) if eps < half] + [half, whole]
    standing = {eps: _count(subject, eps) for eps in radii if eps > subject.eps or eps == whole}
    # Within half the range every image can become the same grey one, which has one class.
    most = int(torch.bincount(subject.y[rows]).max())
    suspect = standing.get(half, 0) > most or exceeds(standing[whole], len(rows), _LARGE_SHARE)
    curve = ", ".join(f"{percent(count, len(rows))} at {as_fraction(eps)}" for eps, count in standing.items())
    if suspect:
        text = f"robust accuracy does not fall to zero as eps grows: {curve}"
        return Outcome(True, f"{text}; within the last eps any image can become any other")
    return Outcome(False, f"robust accuracy falls as eps grows: {curve}")


def more_steps(subject: CheckedNetwork) -> Outcome:
    """Do more steps break every image that fewer steps do, and do they converge?"""
    subject.require_attackable()
    rows = subject.correct
    many = subject.after_steps
    few = subject.stands(subject.steps(_FEW_STEPS), rows)
    counts = [f"{int(few.sum())} after {_FEW_STEPS} steps", f"{int(many.sum())} after {STEPS}"]
    alone = 0
    if subject.norm != "l1":
        one = subject.stands(subject.single_step(), rows)
        counts.insert(0, f"{int(one.sum())} after 1 step")
        alone = int((~one & many).sum())
    gained = int((few & ~many).sum())
    text = f"unbroken of {len(rows)} images: {', '.join(counts)}"
    if exceeds(alone, len(rows), _ALONE_SHARE):
        return Outcome(True, f"{text}; 1 step breaks {alone} that {STEPS} steps don't")
    if exceeds(gained, len(rows), _ROUGH_SHARE):
        return Outcome(True, f"{text}; the attack has not converged, so more steps would find more")
    return Outcome(False, text)


def black_box(subject: CheckedNetwork) -> Outcome:
    """Does an attack without gradients break images that gradient attacks can't?"""
    subject.require_images()
    attack = Square(subject.norm, subject.eps, _QUERIES)  # type: ignore[arg-type]
    return _compare(subject, f"Square with {_QUERIES} queries", subject.left, ~subject.stands(attack, subject.left))


def transfer(subject: CheckedNetwork) -> Outcome:
    """Do adversarial examples of another network break images that gradient attacks can't?"""
    subject.require_images()
    if subject.surrogate is None:
        raise SkippedError("no surrogate network was given")
    rows = subject.left
    if len(rows) == 0:
        return _compare(subject, "a surrogate", rows, rows.bool())
    surrogate = subject.surrogate if isinstance(subject.surrogate, nn.Module) else subject.surrogate()
    right = _accuracy(subject, surrogate)
    attack = subject.steps(_TRANSFER_STEPS, to_the_end=True)
    broken = ~subject.stands(attack, rows, on=surrogate)
    return _compare(subject, f"a surrogate (right on {right} of the images)", rows, broken)


def _compare(subject: CheckedNetwork, name: str, rows: Tensor, broken: Tensor) -> Outcome:
    total, found = len(subject.correct), int(broken.sum())
    if len(rows) == 0:
        return Outcome(False, f"the gradient attacks break all {total} images")
    left = "no gradient attack can run; " if subject.gradient_error is not None else ""
    text = f"{left}{name} breaks {found} of the {len(rows)} images that the gradient attacks leave of {total}"
    return Outcome(exceeds(found, total, _OTHER_SHARE), text)


def _count(subject: CheckedNetwork, eps: float) -> int:
    attack = subject.steps(_LARGE_STEPS, eps=eps, loss="margin")
    return int(subject.stands(attack, subject.correct).sum())


def _half_and_whole(norm: str, pixels: int) -> tuple[float, float]:
    """The radii within which any image can become grey, and any image can become any other."""
    whole = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]
    return whole / 2, whole


def _accuracy(subject: CheckedNetwork, surrogate: nn.Module) -> str:
    with plain_view(surrogate) as view, torch.no_grad():
        logits = torch.cat([view(x) for x in torch.split(subject.x, subject.batch_size)])
    if logits.shape[1] != subject.clean.shape[1]:
        raise InputError(
            f"the surrogate has {logits.shape[1]} classes; expected {subject.clean.shape[1]} as the network"
        )
    return percent(int(is_right(logits, subject.y).sum()), len(logits))

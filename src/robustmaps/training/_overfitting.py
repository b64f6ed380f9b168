"""Two kinds of overfitting, which training without an attack does not have.

Catastrophic (arXiv 2001.03994, section 5.3): the single step breaks fewer images than ever, while PGD suddenly breaks
nearly all. Robust (arXiv 2002.11569): fewer and fewer new images withstand an attack, while those in training do.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustmaps.defenses import Defense, count_correct, validation_attack
from robustmaps.engine.view import AttackView

PROBED_IMAGES = 256
"""The training images that are attacked with more steps after every epoch of a single-step defence."""


class CatastrophicOverfitting(UserWarning):
    """The network is robust only against the single step that it is trained with."""


@torch.no_grad()
def withstanding(
    view: AttackView, x: Tensor, y: Tensor, defense: Defense, generator: torch.Generator, part: int
) -> float:
    """The share of images (N, C, H, W) that withstand more steps than the defence makes, attacked in parts."""
    attack = validation_attack(defense.attack)
    assert attack is not None  # noqa: S101 - for the type checker
    withstood = 0.0
    for rows in torch.arange(len(x), device=x.device).split(part):  # type: ignore[no-untyped-call]
        x_adv = attack(view, x[rows], y[rows], generator=generator)
        withstood += float(count_correct(view(x_adv), y[rows]))
    return withstood / len(x)


def has_overfitted(against_one: float, against_many: float, before: Sequence[float], classes: int) -> bool:
    """Whether the network withstands the single step alone.

    Args:
        against_one: the share of images that withstand the single step.
        against_many: the share that withstand more steps.
        before: the latter after the epochs before, with the full budget.
        classes: their number.
    """
    chance = 1 / classes
    learnt = against_one > min(2 * chance, (1 + chance) / 2)  # twice chance; with few classes, halfway to 1
    fallen = against_many < max(max(before, default=0.0) / 2, against_one / 10)
    return learnt and against_many < against_one / 2 and fallen


def tell_of_overfitting(defense: Defense, record: Mapping[str, Any], against_many: float) -> None:
    """Warn, with both figures and what to do about it."""
    attack = validation_attack(defense.attack)
    assert attack is not None  # noqa: S101 - for the type checker
    warnings.warn(
        f"catastrophic overfitting in epoch {record['epoch']}: {100 * record['train_robust_accuracy']:.0f} % of the "
        f"images withstand the single step of {defense.name}, but only {100 * against_many:.0f} % withstand "
        f"{attack.name} with more steps; use a smaller eps or lr, n-fgsm, or a defence with several steps",
        CatastrophicOverfitting,
        stacklevel=2,
    )


def robust_fall(history: Sequence[Mapping[str, Any]], best_epoch: int, images: int) -> float | None:
    """By how much robust accuracy on validation images fell after the best epoch, as a share of them.

    Args:
        history: a record per epoch.
        best_epoch: its number, from 1.
        images: the number of validation images.

    Returns:
        The fall to the last epoch; None if it is none, within the 95 % interval of a difference of two samples, or of
        the catastrophic kind.
    """
    key = "validation_robust_accuracy"
    best, last = (history[epoch - 1].get(key) for epoch in (best_epoch, len(history)))
    catastrophic = any(record.get("catastrophic_overfitting") for record in history[best_epoch:])
    if best is None or last is None or not images or catastrophic:
        return None
    error = math.sqrt((best * (1 - best) + last * (1 - last)) / images)
    return float(best - last) if best - last > 1.96 * error else None

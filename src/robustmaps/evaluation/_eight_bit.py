"""Adversarial images as they are saved: on the 8-bit grid of PNG, and checked once more."""

import torch
from torch import Tensor, nn

from robustmaps.attacks import norms
from robustmaps.engine.checked import Damaged
from robustmaps.engine.device import device_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import is_right
from robustmaps.engine.view import plain_view
from robustmaps.evaluation._result import Evaluation

TOLERANCE = 1e-5
"""Rounding of float32 images and distances; a larger excess is the attack's fault, and is cut off and reported."""
_LEVELS = 255
# In levels: the rounding of the difference of two float32 images in [0, 1].
_ALMOST = 1e-4
# Of the largest logit: another batch size orders additions differently, which moves logits by about 1e-6 of it.
_LOGIT_ROUNDING = 1e-4


def check_eight_bit(x: Tensor) -> None:
    """Refuse clean images that are not on the 8-bit grid.

    Raises:
        InputError: a value is between two multiples of 1/255.
    """
    levels = x.float() * _LEVELS
    off = float((levels - levels.round()).abs().max()) if len(x) else 0.0
    if off > _ALMOST:
        raise InputError(f"eight_bit: expected images of multiples of 1/255; found a value {off:.2g} levels off")


def towards_clean(x_adv: Tensor, clean: Tensor) -> Tensor:
    """Round images to multiples of 1/255, each value towards the clean image's, so that no norm grows."""
    levels = (x_adv - clean) * _LEVELS
    moved = levels.sign() * (levels.abs() + _ALMOST).floor()
    return ((clean * _LEVELS).round() + moved).clamp_(0, _LEVELS).div_(_LEVELS)


@torch.no_grad()
def check_saved(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, evaluation: Evaluation) -> dict[str, int]:
    """Check the images of broken samples again, with the network in float32 and evaluation mode.

    Args:
        model: the network.
        x: clean images of these samples (n, C, H, W) in [0, 1].
        y: their labels (n,).
        x_adv: their adversarial images, like ``x``.
        evaluation: the distances, the budget and the batch size.

    Returns:
        Numbers of images: ``images`` in all, ``misleading_at_8_bits``, which are still misclassified when rounded to
        multiples of 1/255, as in a PNG file, and ``within_budget_at_8_bits``, which are so within the budget.

    Raises:
        Damaged: an image is outside the budget or [0, 1], at another distance, or classified correctly.
    """
    device = device_of(model)
    found = torch.tensor([distance for distance in evaluation.distances if distance is not None], device=device)
    misleading = within = 0
    with plain_view(model) as plain:
        for start in range(0, len(x), batch := int(evaluation.environment["batch_size"])):
            clean, labels, saved = (part[start : start + batch].to(device) for part in (x.float(), y, x_adv.float()))
            distance = norms(saved - clean, evaluation.norm)
            logits = plain(saved)
            right = logits.gather(1, labels[:, None]).squeeze(1)
            others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
            rounding = _LOGIT_ROUNDING * logits.nan_to_num(0, 0, 0).abs().amax(1).clamp(min=1)
            sound = (
                (distance <= evaluation.eps + TOLERANCE)
                & ((distance - found[start : start + batch]).abs() <= TOLERANCE * distance.clamp(min=1))
                & ((saved - saved.clamp(0, 1)).abs().flatten(1).amax(1) <= TOLERANCE)
                & ~(right > others + rounding)  # a logit that is not a number is not right either
            )
            if not bool(sound.all()):
                raise Damaged(f"{int((~sound).sum())} of {len(sound)} adversarial images are not those that were found")
            png = (saved * _LEVELS).round().clamp(0, _LEVELS) / _LEVELS
            fooled = ~is_right(plain(png), labels)
            misleading += int(fooled.sum())
            within += int((fooled & (norms(png - clean, evaluation.norm) <= evaluation.eps + TOLERANCE)).sum())
    return {"images": len(x), "misleading_at_8_bits": misleading, "within_budget_at_8_bits": within}

"""Checks without attacks, of the network's behaviour and its input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robustmaps.engine.finite import predictions, undecided
from robustmaps.engine.numbers import counted
from robustmaps.evaluation._checks._finding import Outcome, percent
from robustmaps.evaluation._checks._modules import state_restored
from robustmaps.evaluation._checks._subject import ROUNDING, CheckedNetwork, distance

# Other batch sizes use other kernels, which differ by about 1e-3 on GPUs. Batch statistics change logits by over 10 %.
BATCH_ROUNDING = 5e-3

_FEW = 16
# With fewer rows of outputs chance makes them look alike.
_FEWEST_ROWS, _FEWEST_IMAGES = 4, 10


def training_mode(subject: CheckedNetwork) -> Outcome:
    """Is the network in training mode, and does that change its logits?"""
    layers = counted(sum(was for module, was in subject.modes if not any(module.children())), "layer")
    if not any(was for _, was in subject.modes):
        return Outcome(False, "every module is in evaluation mode")
    try:
        handed_in = subject.logits_as_handed_in(subject.x)
    except ValueError as error:  # from a batch-norm with one value per channel
        return Outcome(True, f"{layers} in training mode, in which the network fails ({error})")
    moved = distance(handed_in, subject.clean)
    if moved <= ROUNDING:
        return Outcome(False, f"{layers} in training mode, which does not change the logits")
    turned = int((predictions(handed_in) != predictions(subject.clean)).sum())
    return Outcome(
        True,
        f"{layers} in training mode, which changes logits by up to {share(moved)} of the largest and "
        f"{percent(turned, len(subject.y))} of the predictions",
    )


def stochastic(subject: CheckedNetwork) -> Outcome:
    """Do two passes differ?"""
    first = subject.clean
    again = subject.logits(subject.x)
    moved = distance(again, first)
    if moved <= ROUNDING and not subject.stochastic:
        return Outcome(False, "two passes over the same images give the same logits")
    turned = int((predictions(again) != predictions(first)).sum())
    return Outcome(
        True,
        f"two passes over the same images differ by up to {share(moved)} of the largest logit and in "
        f"{percent(turned, len(again))} of the predictions; use AutoAttack's version rand",
    )


def probabilities(subject: CheckedNetwork) -> Outcome:
    """Does the network return probabilities, whose differences vanish?"""
    logits = subject.clean
    if nameless := int(undecided(logits).sum()):
        return Outcome(True, f"{nameless} of {len(logits)} images have logits that are NaN or several times infinite")
    kind = are_probabilities(logits)
    if kind:
        sure = int((logits.amax(1) > 1 - 1e-6).sum())
        return Outcome(
            True, f"the outputs are {kind}, {percent(sure, len(logits))} of them 1 to six digits; return logits"
        )
    if bool((logits <= 0).all()) and bool((logits.logsumexp(1).abs() < ROUNDING).all()):
        return Outcome(False, "the outputs are log-probabilities, which attacks can use like logits")
    low, high = logits.aminmax()
    return Outcome(False, f"the outputs are logits, from {float(low):.3g} to {float(high):.3g}")


def are_probabilities(logits: Tensor) -> str:
    """What kind of probabilities the outputs (N, K) are, in any precision and times any number; empty for none."""
    sums = logits.sum(1)
    tolerance = max(ROUNDING, 4 * resolution(logits))
    if not bool((logits >= 0).all()) or not bool(sums.isfinite().all()):
        return ""
    if bool(((sums - 1).abs() <= tolerance).all()):
        return "probabilities"
    if len(sums) >= _FEWEST_ROWS and bool(((sums / sums.mean() - 1).abs() <= tolerance).all()):
        return f"probabilities times {float(sums.mean()):.3g}"
    top = logits.amax(1)
    # Similarities of directions lie in [0, 1], too, but rarely so far apart.
    if len(sums) >= _FEWEST_ROWS and float(top.max()) <= 1 and float(top.median()) > 0.7 and float(logits.min()) < 0.1:
        return "probabilities of each class by itself, such as from a sigmoid"
    return ""


def resolution(logits: Tensor) -> float:
    """The relative precision of the outputs, seen from their values: that of bfloat16, float16 or float32."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(logits.to(dtype).float(), logits):
            return torch.finfo(dtype).eps
    return torch.finfo(torch.float32).eps


def input_range(subject: CheckedNetwork) -> Outcome:
    """Are the images float images in [0, 1] that use that range?"""
    return range_of(subject.x)


def range_of(x: Tensor) -> Outcome:
    """Are these float images in [0, 1] that use that range?"""
    if not x.is_floating_point():
        return Outcome(True, f"the images are {str(x.dtype).removeprefix('torch.')}: expected floats in [0, 1]")
    if not bool(x.isfinite().all()):
        return Outcome(True, f"{int((~x.isfinite()).sum())} values are NaN or infinite")
    low, high = (float(bound) for bound in x.aminmax())
    span = f"the images span [{low:.4g}, {high:.4g}]"
    if low < 0 or high > 1:
        hint = "divide by 255" if high > 2 and low >= 0 else "normalisation belongs inside the model"
        return Outcome(True, f"{span}: expected [0, 1]; {hint}")
    constant = int((x.flatten(1).amax(1) == x.flatten(1).amin(1)).sum())
    if 2 * constant > len(x) >= _FEWEST_IMAGES:
        return Outcome(True, f"{constant} of {len(x)} images have the same value in every pixel")
    if high <= 2 / 255:
        return Outcome(True, f"{span}; were they divided by 255 twice?")
    if high - low < 0.1:
        return Outcome(True, f"{span}, less than a tenth of [0, 1], in which eps is given")
    return Outcome(False, span)


def test_time_optimisation(subject: CheckedNetwork) -> Outcome:
    """Does a forward pass learn: compute gradients, change weights, or make logits depend on the batch?"""
    _ = subject.clean
    x = subject.x[:_FEW]
    signs = []
    with state_restored(subject.model) as changed, GradientCount() as gradients:
        together = subject.logits(x)
        names = changed()
    if gradients.count:
        signs.append(f"a pass computes gradients itself, in {counted(gradients.count, 'call')}")
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        signs.append(f"a pass in evaluation mode changes {names[0]}{more}")
    if len(x) > 1 and not subject.stochastic:
        with state_restored(subject.model):
            alone = torch.cat([subject.logits(image) for image in torch.split(x, 1)])
        moved = distance(alone, together)
        if moved > BATCH_ROUNDING:
            signs.append(f"an image's logits change by up to {share(moved)} with the other images of its batch")
    if not signs:
        return Outcome(False, "a pass computes no gradients, changes no weights and treats each image independently")
    return Outcome(True, "; ".join(signs))


class GradientCount(TorchFunctionMode):
    """Counts the gradient computations within the block."""

    count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            self.count += 1
        return func(*args, **(kwargs or {}))


def share(value: float) -> str:
    return f"{100 * value:.2g} %"

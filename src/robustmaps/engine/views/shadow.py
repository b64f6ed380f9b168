"""A network's fast copy: how it is altered, kept up to date, and compared with the network."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import parameter_dtype
from robustmaps.engine.device import Precision
from robustmaps.engine.errors import NoGradientError
from robustmaps.engine.finite import largest_difference, largest_finite
from robustmaps.engine.modes import hidden_modules
from robustmaps.engine.views.folding import FoldablePair, find_foldable, folded_parameters

# Largest differences from the network that rounding explains: of the logits relative to the largest one, and of the
# gradient relative to its norm. A copy that permutes features is off by about 1. Folding and channels-last change
# float32 logits by about 1e-6 and the gradients of 50 layers by up to 1e-3, where rectifiers switch; bf16 changes them
# by up to 0.15 and 0.45.
_TOLERANCES: dict[object, tuple[float, float]] = {
    torch.float64: (1e-8, 0.05),
    torch.float16: (0.05, 0.3),
    torch.bfloat16: (0.3, 1.0),
    "tf32": (0.02, 0.3),
    "bf16": (0.3, 1.0),
}
_FLOAT32_TOLERANCES = (1e-3, 0.05)

# Images that a copy is compared on, as they are and mixed with noise.
_COMPARED = 2


class View(Protocol):
    """A network's logits and input gradients."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W)."""
        ...

    def gradient(self, x: Tensor, objective: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, an objective of them, and its gradient at the images."""
        ...


@dataclass(frozen=True)
class Sample:
    """What a network gives for a few images.

    Attributes:
        logits: (2 N, K), of images and then of the same mixed with noise.
        gradient: (N, C, H, W) at the mixed images, where no two values of a pooling window are equal by chance; None
            without one.
    """

    logits: Tensor
    gradient: Tensor | None

    @staticmethod
    def of(view: View, example: Tensor) -> "Sample":
        """A sample at the first images, with the same random draws each time; PyTorch's random state is kept."""
        with torch.random.fork_rng([example.device] if example.device.type == "cuda" else []):
            torch.manual_seed(0)
            x = example[:_COMPARED].detach()
            images = torch.cat([x, (x + torch.rand_like(x)) / 2])
            try:
                logits, _, gradient = view.gradient(images, _mixture)
                return Sample(logits, gradient[len(x) :])
            except NoGradientError:
                with torch.no_grad():  # the outputs may be parameters themselves
                    return Sample(view(images).detach(), None)

    def difference(self, other: "Sample", precision: Precision, dtype: torch.dtype | None) -> str | None:
        """How a copy's sample differs by more than rounding; None if it does not."""
        most = _TOLERANCES.get(precision) or _TOLERANCES.get(dtype) or _FLOAT32_TOLERANCES
        if self.logits.shape != other.logits.shape:
            return f"its logits have the shape {tuple(other.logits.shape)}"
        logits = _largest_difference(other.logits, self.logits)
        if not logits <= most[0]:
            return f"its logits differ by {logits:.2g} of the largest"
        if self.gradient is None or other.gradient is None:
            return None if self.gradient is other.gradient else "only one of both has a gradient"
        gradient = _norm_of_difference(other.gradient, self.gradient)
        return None if gradient <= most[1] else f"its input gradients differ by {gradient:.2g} of their norm"


def differing(logits: Tensor, expected: Tensor) -> Tensor:
    """Rows of a copy's logits (N, K) that differ from the network's by more than any rounding, booleans (N,)."""
    same = (logits == expected) | (logits.isnan() & expected.isnan())
    apart = torch.where(same, 0.0, logits - expected).abs().nan_to_num(torch.inf, torch.inf).amax(1)
    return apart > _TOLERANCES["bf16"][0] * largest_finite(expected).clamp(min=1e-6)


def repeats(logits: Tensor, again: Tensor) -> bool:
    """Whether a network computes the same for the same images, but for what the order of sums changes on a GPU."""
    apart = (logits - again).abs().nan_to_num(0.0, torch.inf).amax()
    return bool(apart <= _FLOAT32_TOLERANCES[0] * largest_finite(again).clamp(min=1e-6))


def fold(shadow: nn.Module, example: Tensor) -> tuple[FoldablePair, ...]:
    """Remove the batch-norms that can be folded; `copy_weights` sets the values of what is left."""
    if parameter_dtype(shadow) in (torch.float16, torch.bfloat16):  # a folded weight would be rounded once more
        return ()
    pairs = tuple(find_foldable(shadow, example))
    for pair in pairs:
        convolution = _convolution(shadow, pair)
        if convolution.bias is None:
            convolution.bias = nn.Parameter(convolution.weight.new_zeros(convolution.out_channels), requires_grad=False)
        parent, _, name = pair.norm.rpartition(".")
        setattr(shadow.get_submodule(parent), name, nn.Identity())
    return pairs


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """Move fresh batch-norms and zero weights, which hide mistakes until training has moved them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            factor = torch.linspace(0.5, 1.5, module.num_features).to(module.running_mean)
            module.running_mean.add_(module.running_var.sqrt() * (factor - 0.75))
            module.running_var.mul_(factor)
            if module.affine:
                module.weight.mul_(factor).add_(0.1)
                module.bias.add_(0.1 * factor)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dim() > 0 and not parameter.any():
            parameter.copy_(torch.linspace(-0.1, 0.2, parameter.numel()).view(parameter.shape))


def store_in_bf16(shadow: nn.Module) -> None:
    """Convert the weights that autocast would otherwise convert in every pass."""
    for module in shadow.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)


@torch.no_grad()
def copy_weights(model: nn.Module, shadow: nn.Module, folded: tuple[FoldablePair, ...]) -> None:
    """Bring the shadow's parameters and buffers up to date, in one call where the device has one for many tensors."""
    sources = dict(model.named_modules())
    merged: set[str] = set()
    present: list[tuple[Tensor, Tensor]] = []
    for pair in folded:
        norm = cast(nn.BatchNorm2d, sources[pair.norm])
        weight, bias = folded_parameters(_convolution(model, pair), norm)
        target = _convolution(shadow, pair)
        present += [(target.weight, weight), (cast(Tensor, target.bias), bias)]
        merged.update((pair.convolution, pair.norm))
    for path, module in shadow.named_modules():
        if path not in merged:
            present += _own(sources[path], module)
    hidden = hidden_modules(shadow)
    if hidden:
        originals = hidden_modules(model)
        for path, module in hidden.items():
            for source, target_ in zip(originals[path].modules(), module.modules(), strict=True):
                present += _own(source, target_)
    if present:
        copies, values = zip(*present, strict=True)
        torch._foreach_copy_(copies, values)


def _own(source: nn.Module, target: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of a copied module itself, each with its original."""
    for values, originals in ((target._parameters, source._parameters), (target._buffers, source._buffers)):
        for name, value in values.items():
            original = originals[name]
            if value is not None and original is not None:
                yield value, original


def _convolution(model: nn.Module, pair: FoldablePair) -> nn.Conv2d:
    return cast(nn.Conv2d, model.get_submodule(pair.convolution))


def _mixture(logits: Tensor) -> Tensor:
    """A sum of the logits with different weights, so that no permutation of classes leaves it as it is."""
    finite = torch.where(logits.isfinite(), logits, 0.0)
    return (finite * torch.linspace(-1.0, 2.0, logits.shape[1]).to(logits)).sum(1)


def _largest_difference(values: Tensor, expected: Tensor) -> float:
    """Relative to the largest finite expected value."""
    return float(largest_difference(values, expected) / largest_finite(expected).clamp(min=1e-6))


def _norm_of_difference(values: Tensor, expected: Tensor) -> float:
    """Relative to the expected norm, over the values that are finite in both."""
    finite = values.isfinite() & expected.isfinite()
    values, expected = (torch.where(finite, one, 0.0).double() for one in (values, expected))
    return float((values - expected).norm() / expected.norm().clamp(min=1e-30))

"""The identity of a network: its weights, and what it computes with them on a few fixed images.

The same weights may belong to another function: another forward, edited code, a changed attribute, or members in a
plain list, which are not among the weights.
"""

import hashlib
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustmaps.engine.device import device_of
from robustmaps.engine.view import plain_view
from robustmaps.evaluation._agreement import Computed, agree
from robustmaps.evaluation._described import BUILT_IN, described
from robustmaps.evaluation._fingerprints import weights_sha256

_IMAGES, _VALUES, _SEED = 4, 8, 1729
_DARK = 0.3
# Gradients are taken at noise alone: at flat patches, maxima are ties, which devices break in different ways.
_GRADIENTS = 2


@dataclass(frozen=True)
class Identity:
    """What identifies a network.

    Attributes:
        weights: hash of its parameters and buffers.
        computes: what it computes on the fixed images.
        built_in: whether its code is PyTorch's and this package's alone.
    """

    weights: str
    computes: Computed
    built_in: bool

    @staticmethod
    def of(model: nn.Module, shape: Sequence[int]) -> "Identity":
        """The identity of a network for images of shape (C, H, W); two passes of five images and two gradients."""
        return Identity(weights_sha256(model), what_it_computes(model, shape), is_built_in(model))

    def matches(self, recorded: Computed | None) -> bool:
        """Whether a result of the same weights is of this network.

        Results of earlier versions have no record: they are of this network if its code is built in.
        """
        return self.built_in if recorded is None else agree(recorded, self.computes)


def what_it_computes(model: nn.Module, shape: Sequence[int]) -> Computed:
    """What a network computes on a few fixed images (C, H, W), in float32 and evaluation mode.

    Its logits, centred for each image, and their gradients at two of the images are projected to a few values, so that
    the record is short for any number of classes. Gradients count because attacks follow them: a rounding that passes
    them on has the logits of one that does not. PyTorch's, NumPy's and Python's random draws are seeded, so random
    networks have an identity too. If the network can't take the images or computes something else each time, the hash
    of its code and of all plain values that it uses takes their place.
    """
    images, before = _fixed_images(shape).to(device_of(model)), described(model)
    first, again = (_projected_logits(model, images) for _ in range(2))
    if first is None or again is None or not agree(first, again):
        # Not what a pass changes, such as a count of the passes.
        lasting = sorted(before.items() & described(model).items())
        return f"code {hashlib.sha256(repr((type(model).__qualname__, lasting)).encode()).hexdigest()}"
    slopes, same = (_projected_gradients(model, images[:_GRADIENTS]) for _ in range(2))
    return (*first, *slopes) if agree((*first, *slopes), (*first, *same)) else first


def is_built_in(model: nn.Module) -> bool:
    """Whether all of a network's modules are PyTorch's or this package's, none with a forward of its own."""
    return all(
        type(module).__module__.partition(".")[0] in BUILT_IN and "forward" not in vars(module)
        for module in model.modules()
    )


def _fixed_images(shape: Sequence[int]) -> Tensor:
    """Noise, one dark; coarse patches, which survive pooling, one bright; and noise that is often exactly 0 or 1."""
    generator = torch.Generator().manual_seed(_SEED)
    fine = torch.rand(_IMAGES // 2, *shape, generator=generator)
    coarse = torch.rand(_IMAGES - _IMAGES // 2, shape[0], 3, 3, generator=generator)
    fine[0] *= _DARK
    coarse[0] = 1 - _DARK * coarse[0]
    clipped = (2 * torch.rand(1, *shape, generator=generator) - 0.5).clamp(0, 1)
    return torch.cat([fine, functional.interpolate(coarse, tuple(shape[1:])), clipped])


@torch.no_grad()
def _projected_logits(model: nn.Module, images: Tensor) -> tuple[float, ...] | None:
    try:
        with _seeded(images.device), plain_view(model) as plain:
            logits = plain(images).cpu().double()
    except Exception:  # noqa: BLE001 - the network is the user's
        return None
    # Masked classes and NaN count by where they are.
    logits = torch.where(logits.isfinite(), logits - _mean_of_finite(logits), logits.nan_to_num(-3.0, 5.0, -7.0))
    directions = torch.randn(logits.shape[1], _VALUES, generator=torch.Generator().manual_seed(_SEED)).double()
    values = logits @ directions / math.sqrt(logits.shape[1])
    return tuple(float(f"{value:.6g}") for value in values.flatten().tolist())


def _projected_gradients(model: nn.Module, images: Tensor) -> tuple[float, ...]:
    """Zeros where there is no gradient."""

    def objective(logits: Tensor) -> Tensor:
        weights = torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(_SEED)).to(logits)
        return torch.where(logits.isfinite(), logits, 0.0) @ weights

    try:
        with _seeded(images.device), plain_view(model) as plain:
            _, _, gradient = plain.gradient(images, objective)
    except Exception:  # noqa: BLE001 - the network is the user's
        return (0.0,) * _VALUES * len(images)
    flat = gradient.flatten(1).cpu().double()
    directions = torch.randn(flat.shape[1], _VALUES, generator=torch.Generator().manual_seed(_SEED)).double()
    return tuple(float(f"{value:.4g}") for value in (flat @ directions).flatten().tolist())


def _mean_of_finite(logits: Tensor) -> Tensor:
    finite = logits.isfinite()
    return logits.where(finite, 0.0).sum(1, keepdim=True) / finite.sum(1, keepdim=True).clamp(min=1)


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    """Within the block, random draws start from a fixed seed; afterwards all generators are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.manual_seed(_SEED)
            random.seed(_SEED)
            np.random.seed(_SEED)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

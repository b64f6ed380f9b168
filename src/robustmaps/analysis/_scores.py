"""The perturbation gain of a network as a single number with its 95 % interval over images, to rank enlargements."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from robustmaps.analysis._analysis import MarginGain
from robustmaps.analysis._gain import first_order_gain, reached_gain
from robustmaps.analysis._probe import StageProbe, gain_of
from robustmaps.analysis._stages import find_stages
from robustmaps.attacks import logit_margin
from robustmaps.engine.calling import fitting
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.engine.modes import no_shortcuts
from robustmaps.engine.view import AttackView, plain_view
from robustmaps.tracing import find_head, trace

_BATCH = 16
_RESAMPLES = 1000


def feature_gain(
    model: nn.Module, x: Tensor, *, eps: float = 8 / 255, norm: str = "linf", directions: int = 4, seed: int = 0
) -> Measured:
    """The first-order gain of the last map's pooled features, in units of their spread over the images.

    It needs neither labels nor trained weights, so it can rank enlargements of an untrained network.

    Args:
        model: any classifier; used in evaluation mode and restored afterwards.
        x: images (N, C, H, W) in [0, 1], at least two.
        eps: the budget's radius, in units of images in [0, 1].
        norm: ``linf`` or ``l2``.
        directions: number of random unit vectors along which features are measured.
        seed: seed of the directions.
    """
    if len(x) < 2:
        raise InputError(f"x contains {len(x)} image(s): expected at least two (samples), to measure their spread")
    with no_shortcuts():
        recorded = trace(model, x[:1])
    last = find_stages(recorded)[-1:]
    head = find_head(recorded)
    probe = StageProbe(model, last, [head is not None and head.kind == "max"], eps, norm, directions, seed)
    with plain_view(model), no_shortcuts():
        parts = [probe.measure_features(x[begin : begin + _BATCH]) for begin in range(0, len(x), _BATCH)]
    gain = gain_of(parts, 0)
    return Measured(np.inf, -np.inf, np.inf) if gain.relative is None else gain.relative


def margin_gains(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float = 8 / 255, norm: str = "linf", steps: int = 0
) -> MarginGain:
    """The gain on each image's margin, to first order and by projected gradient descent.

    Args:
        model: any classifier; used in evaluation mode and restored afterwards.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        eps: the budget's radius, in units of images in [0, 1].
        norm: ``linf``, ``l2``, or without projected gradient descent ``l1``.
        steps: steps of projected gradient descent; 0 skips it.
    """
    margins, first, reached = [], [], []
    with plain_view(model) as view:
        for begin in range(0, len(x), _BATCH):
            images, labels = x[begin : begin + _BATCH], y[begin : begin + _BATCH]
            wrong = partial(_wrong, view, labels)
            with torch.no_grad():
                margins += (-wrong(images)).tolist()
            first += first_order_gain(wrong, images, eps=eps, norm=norm).tolist()
            if steps:
                reached += reached_gain(wrong, images, eps=eps, norm=norm, steps=steps).tolist()
    return MarginGain(tuple(margins), tuple(first), tuple(reached) if steps else None)


def margin_gain(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = 8 / 255, norm: str = "linf") -> Measured:
    """The median over images of the margin's first-order gain divided by the margin.

    Misclassified images count as infinite, so that enlargements can be compared on the same images.

    Args:
        model: any classifier; used in evaluation mode and restored afterwards.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        eps: the budget's radius, in units of images in [0, 1].
        norm: ``linf``, ``l2`` or ``l1``.
    """
    gains = margin_gains(model, x, y, eps=eps, norm=norm)
    relative = np.full(len(x), np.inf)
    relative[gains.right] = gains.relative()
    drawn = np.random.default_rng(0).integers(len(x), size=(_RESAMPLES, len(x)))
    medians = np.quantile(relative[drawn], 0.5, axis=1, method="higher")
    # No mean of two of them, which may be infinite.
    low, high = np.quantile(medians, 0.025, method="lower"), np.quantile(medians, 0.975, method="higher")
    return Measured(float(np.quantile(relative, 0.5, method="higher")), float(low), float(high), len(x))


def _wrong(view: AttackView, y: Tensor, x: Tensor) -> Tensor:
    return logit_margin(fitting(view(x), y), y)

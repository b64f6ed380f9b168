"""Which enlargement to train: all of them within a budget, with what a perturbation gains on each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from robustmaps.analysis import feature_gain, margin_gain
from robustmaps.config import parse_shares
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.finite import undecided
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import budget_text
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.writing.outputs import claim
from robustmaps.enlarging import Plan, plan
from robustmaps.figures import plot_plan
from robustmaps.models import Activation, Measure, Pool, Smooth
from robustmaps.networks._names import name_given
from robustmaps.networks._subject import Subject, open_subject

GainKind = Literal["auto", "features", "margin", "none"]
_NAMES = {
    "features": "gain of the pooled features / their spread",
    "margin": "median gain of the margin / margin",
    "none": "not measured",
}
_MEANING = {
    "features": "how far the perturbation moves the pooled features to first order, in units of their spread",
    "margin": "how far the perturbation moves an image's margin to first order, divided by that margin (median over "
    "images; it suffices from 1 on)",
}
_NO_PROMISE = (
    "a small gain is what the theory asks for; which network is robust after training it did not predict "
    "(robustmaps explain what-predicts-the-gain)"
)


@dataclass(frozen=True)
class PlannedNetwork:
    """A plan and how its gains were measured.

    Attributes:
        plan: the enlargements within the budget.
        gain: what the gain is, in words.
        files: what was written.
    """

    plan: Plan
    gain: str
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.plan.to_dict(), "gain": self.gain, "files": [str(path) for path in self.files]}


def plan_network(
    model: str,
    *,
    budget: float = 2.0,
    measure: Measure = "flops",
    upsamples: tuple[float, ...] = (1.0, 2.0),
    dilate: bool = False,
    smooth: Smooth | None = None,
    activation: Activation | None = None,
    enlarge_at: str | None = None,
    gain: GainKind = "auto",
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    samples: int = 32,
    eps: float | None = None,
    norm: str | None = None,
    weights: str | None = None,
    strides: str | None = None,
    pool: Pool | None = None,
    classes: str | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    watcher: Watcher = ignore,
) -> PlannedNetwork:
    """List the enlargements of a network that has a name.

    Args:
        model: what `open_model` takes.
        budget: how many times the given network's cost may be spent.
        measure: what the budget limits.
        upsamples: factors to try.
        dilate: whether later windows are spread.
        smooth: whether steps keep the size of their maps, and how, see `enlarging.enlarge`.
        activation: what takes the place of ReLU, see `enlarging.plan`.
        enlarge_at: the share of the epochs after which training enlarges, or several, as in `config.ModelConfig`.
        gain: of the pooled ``features`` of the last map in units of their spread, which needs no training; of the
            ``margin`` relative to it, which needs trained weights; ``auto`` takes the one that fits; or ``none``.
        data: the images; those that the network was trained on if left out, the digits for a network of ours where
            none are known.
        image_size: resize images to this many pixels a side.
        channels: of the images, 1 or 3; the data set's own where None.
        samples: images to measure the gain on.
        eps: the budget of the perturbation; the network's own if left out, 8/255 where none is known.
        norm: its norm; likewise, l_inf where none is known.
        weights: a file with weights for a network that is named, see `open_model`.
        strides: of a network of ours.
        pool: likewise.
        classes: names of the network's outputs in their order, as in `DataConfig`; the recorded order if left out.
        seed: of an untrained network's weights, and of the directions of features.
        device: where to compute.
        out: a PNG to write; none where None.
        watcher: called as the work goes on.

    Raises:
        InputError: a network, data or a budget that can't be used.
    """
    shares = parse_shares(enlarge_at)
    if gain == "none" and (eps is not None or norm is not None):
        raise InputError("gain='none': nothing is perturbed; leave eps and norm out")
    if out is not None and gain == "none":
        raise InputError("gain='none': a picture shows cost against gain; measure one, or leave the picture out")
    if out is not None:
        if Path(out).suffix not in (".png", ".pdf", ".svg"):
            raise InputError(f"out={str(out)!r}: expected a picture's name, such as plan.png, plan.pdf or plan.svg")
        claim(out)
    subject = open_subject(
        model,
        data=data,
        image_size=image_size,
        channels=channels,
        samples=samples,
        eps=eps,
        norm=norm,
        weights=weights,
        strides=strides,
        pool=pool,
        classes=classes,
        seed=seed,
        device=device,
        watcher=watcher,
    )
    if gain == "auto":
        gain = "margin" if subject.network.trained else "features"
    found = plan(
        subject.network.model,
        subject.x[:1],
        budget=budget,
        measure=measure,
        upsamples=upsamples,
        dilate=dilate,
        smooth=smooth,
        activation=activation,
        shares=shares,
        gain=_measured(subject, gain, seed, watcher),
    )
    # JSON knows no infinity; it stands for a network that gets most images wrong.
    without = any(o.gain is not None and math.isinf(o.gain) for o in found.options)
    options = (
        replace(o, gain=None, interval=None) if o.gain is not None and math.isinf(o.gain) else o for o in found.options
    )
    found = replace(found, options=tuple(options))
    files: tuple[Path, ...] = ()
    about = _NAMES[gain]
    if gain != "none":
        about = f"{_MEANING[gain]}; brackets: 95 % intervals over images"
        about += f"; {budget_text(subject.norm, subject.eps)}, {len(subject.x)} images"
        if lost := _undecided(subject):
            about += f"; {lost} of {len(subject.x)} images have NaN or infinite logits; they count as wrong"
    if without:
        about += "; none where most of these are classified wrong"
    if gain == "features":
        about += f"\n{_NO_PROMISE}"
    if out is not None:
        files = (Path(out),)
        plot_plan(files[0], found, f"{name_given(model)}: enlargements within {budget:g}x {measure}", _NAMES[gain])
    return PlannedNetwork(found, about, files)


def _undecided(subject: Subject) -> int:
    """How many images the given network has no prediction for."""
    with torch.no_grad():
        return int(undecided(network_logits(subject.network.model, subject.x)).sum())


def _measured(subject: Subject, kind: GainKind, seed: int, watcher: Watcher) -> Callable[[nn.Module], Measured] | None:
    if kind == "none":
        return None
    done = 0

    def gain(network: nn.Module) -> Measured:
        nonlocal done
        done += 1
        if kind == "margin":
            value = margin_gain(network, subject.x, subject.y, eps=subject.eps, norm=subject.norm)
        else:
            value = feature_gain(network, subject.x, eps=subject.eps, norm=subject.norm, seed=seed)
        watcher(Progress("gain", done, done, "enlargements"))
        return value

    return gain

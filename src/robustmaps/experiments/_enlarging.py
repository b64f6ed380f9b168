"""Enlargements as files: what was changed, and the weights, enough to open the network again."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.enlarging import Enlargement, EnlargeWarning, enlarge
from robustmaps.experiments._config import DataConfig
from robustmaps.experiments._images import Decoding, blank_image, open_subject
from robustmaps.experiments._networks import RECIPE, Fit, OpenedNetwork, open_model
from robustmaps.training import load_weights, save_weights

WEIGHTS = "weights.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class Surgery:
    """What is changed on a network.

    Attributes:
        upsample: factor by which images are enlarged in front of the network.
        upsample_mode: nearest, bilinear or bicubic.
        factor: what the strides of the chosen steps are divided by; 2 if only --where is given.
        where: which downsampling steps: first, last, or numbers with commas.
        dilate: spread later windows so that a trained network keeps its function.
    """

    upsample: float = 1.0
    upsample_mode: str = "nearest"
    factor: int | None = None
    where: str | None = None
    dilate: bool = False

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return self == Surgery()

    def arguments(self) -> dict[str, Any]:
        """Those of `enlarge`.

        Raises:
            InputError: ``where`` is no step.
        """
        return {**asdict(self), "where": parse_where(self.where)}


@dataclass(frozen=True)
class EnlargedNetwork:
    """A network before and after.

    Attributes:
        before: as it was opened.
        model: the enlarged one.
        enlargement: what was changed.
    """

    before: OpenedNetwork
    model: nn.Module
    enlargement: Enlargement


def parse_where(text: str | None) -> str | Sequence[int] | None:
    """``first``, ``last``, or numbers with commas.

    >>> parse_where("0,-1")
    (0, -1)
    """
    if text is None or text in ("first", "last"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"where={text!r}: expected first, last, or numbers of steps such as 0,2") from None


def enlarge_network(
    model: str,
    surgery: Surgery,
    *,
    data: str | None = None,
    image_size: int | None = None,
    samples: int | None = 512,
    strides: str | None = None,
    seed: int = 0,
    latency_runs: int = 5,
    decoding: Decoding | None = None,
) -> EnlargedNetwork:
    """Enlarge a network that has a name.

    Args:
        model: what `open_model` takes.
        surgery: what to change.
        data: images; with them and trained weights the accuracy before and after is measured. Where none are given, a
            network that was trained on known ones uses those, and any other is looked at with a blank image.
        image_size: pixels a side; the network's own where None.
        samples: images for the accuracy.
        strides: of an untrained network of ours.
        seed: of the weights of an untrained network.
        latency_runs: passes to time.
        decoding: called while a data set is decoded for the first time.

    Raises:
        InputError: a network that can't be had or can't be enlarged this way.
    """
    network = open_model(model, Fit(strides=strides, seed=seed))
    labels: Tensor | None = None
    if data is not None or network.data is not None:
        subject = open_subject(
            model,
            data=data,
            image_size=image_size,
            samples=samples,
            strides=strides,
            seed=seed,
            device="cpu",
            decoding=decoding,
        )
        network, example = subject.network, subject.x
        labels = subject.y if network.trained else None
    else:
        example = blank_image(network, image_size)
    larger, enlargement = enlarge(
        network.model, example, **surgery.arguments(), labels=labels, latency_runs=latency_runs
    )
    if labels is None and enlargement.agreement is not None and len(example) == 1:
        enlargement = replace(enlargement, agreement=None)  # one blank image tells nothing
    return EnlargedNetwork(network, larger, enlargement)


def save_enlarged(enlarged: EnlargedNetwork, folder: str | Path) -> tuple[Path, Path]:
    """Write the weights and the recipe from which `open_model` makes the network again; returns both paths.

    Raises:
        InputError: the folder holds another enlargement.
    """
    target = Path(folder)
    if (target / RECIPE).exists() or (target.exists() and not target.is_dir()):
        raise InputError(f"{target} already exists; choose another folder")
    before, what = enlarged.before, enlarged.enlargement
    save_weights(target / WEIGHTS, enlarged.model.state_dict(), {})
    recipe = {
        "format": _FORMAT,
        "model": before.spec,
        "fit": asdict(before.fit),
        "image_size": list(what.image_size),
        "enlarge": [*before.enlargements, what.recipe],
        "trained": before.trained,
        "data": None if before.data is None else asdict(before.data),
        "budget": None if before.budget is None else list(before.budget),
        "weights": WEIGHTS,
    }
    write_json(target / RECIPE, recipe)
    return target / WEIGHTS, target / RECIPE


def open_enlarged(folder: str | Path) -> OpenedNetwork:
    """Open what `save_enlarged` wrote.

    Raises:
        InputError: the recipe or the weights are damaged, or don't fit each other.
    """
    path = Path(folder) / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        version = recipe["format"]
        fit = Fit.of(recipe["fit"])
        changes: list[dict[str, Any]] = list(recipe["enlarge"])
        height, width = recipe["image_size"]
        data = None if recipe["data"] is None else DataConfig(**recipe["data"])
        budget = None if recipe["budget"] is None else (str(recipe["budget"][0]), float(recipe["budget"][1]))
        spec, trained, name = str(recipe["model"]), bool(recipe["trained"]), str(recipe["weights"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a recipe that robustmaps enlarge wrote ({type(error).__name__})") from error
    if version != _FORMAT:
        raise InputError(f"{path}: format {version}, expected {_FORMAT}")
    base = open_model(spec, fit)
    model = base.model
    image = torch.zeros(1, fit.in_channels, height, width)
    for change in changes:
        model = remake(model, image, change)
    weights, _ = load_weights(path.parent / name)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path.parent / name}: the weights don't fit {spec} ({error})") from error
    return OpenedNetwork(model.eval(), spec, fit, trained, data, budget, tuple(changes), base.image_px)


def remake(model: nn.Module, image: Tensor, recipe: dict[str, Any]) -> nn.Module:
    """Repeat an enlargement without measuring it, and without its warnings, which were given when it was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnlargeWarning)
        return enlarge(model, image, **recipe, latency_runs=0)[0]

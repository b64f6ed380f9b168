"""The network that training starts with: named, perhaps with weights of another run, perhaps enlarged."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustmaps import models
from robustmaps.config import DefenseConfig, ModelConfig, RunConfig, from_mapping, parse_surgery
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import weights_sha256
from robustmaps.networks._libraries import Fit, check_name
from robustmaps.networks._open_model import open_model
from robustmaps.networks._opened import OpenedNetwork, found_anywhere
from robustmaps.networks._weights import open_weights
from robustmaps.tracing import first_line, logits


def starting_from(weights: str, base: RunConfig | None = None) -> RunConfig:
    """The configuration of a run that goes on from weights: their network, their images, the budget they met.

    Args:
        weights: what `open_model` takes and finds weights for.
        base: everything else.

    Raises:
        InputError: they can't be opened.
    """
    base = base or RunConfig()
    opened = open_model(weights)
    model = _held(ModelConfig(model=opened.recipe.spec, init_from=weights), opened)
    budget = {} if opened.budget is None else dict(zip(("norm", "eps"), opened.budget, strict=True))
    return from_mapping(budget, replace(base, model=model, data=opened.data or base.data), weights)


def complete(values: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration") -> RunConfig:
    """As `config.from_mapping`; where ``init_from`` is given, network, images and budget are those of these weights.

    Raises:
        InputError: as `config.from_mapping` and `starting_from`.
    """
    start = values.get("init_from", values.get("init-from"))
    given_already = base is not None and base.model.init_from is not None
    if isinstance(start, str) and not given_already and "init_sha256" not in values:
        base = starting_from(start, base)
    return from_mapping(values, base, where)


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with everything filled in that decides the network, so that one run has one name.

    Raises:
        InputError: an unknown network, or strides or weights that don't fit it; or other weights than a run began with.
    """
    model = config.model
    if model.enlarge is not None:
        model = replace(model, enlarge=str(parse_surgery(model.enlarge)))
    if model.init_from is not None:
        weights = found_anywhere(model.init_from)
        model = replace(model, init_from=weights)
        if model.init_sha256 is None:
            model = _held(model, open_model(weights))
    elif model.init_sha256 is not None:
        raise InputError(f"init_sha256={model.init_sha256}: needs init_from, the weights whose hash it is")
    else:
        model = _named(model)
    return replace(config, model=model, defense=_with_helper(config.defense))


def _with_helper(defense: DefenseConfig) -> DefenseConfig:
    if defense.helper is None:
        return defense
    digest = weights_sha256(open_weights(defense.helper)[0].model)
    _same_weights(defense.helper, digest, defense.helper_sha256)
    return replace(defense, helper=found_anywhere(defense.helper), helper_sha256=digest)


def _same_weights(where: str, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            f"{where}: its weights have the hash {found[:12]}, those that this run began with had {expected}; "
            "expected the same weights"
        )


def create_network(config: RunConfig, data: Dataset) -> OpenedNetwork:
    """The network before training; what is random is drawn from the run's seed, PyTorch's state is left as it was.

    Raises:
        InputError: it can't be had, can't be enlarged as asked, or does not fit the images.
    """
    model = config.model
    if model.init_from is not None:
        opened = open_model(model.init_from)
        _held(model, opened)
    else:
        fit = Fit.to_data(data, strides=model.strides, seed=config.training.seed)
        opened = open_model(model.model, replace(fit, upsample=model.upsample, upsample_mode=model.upsample_mode))
    if model.enlarge is not None:
        opened = opened.enlarged(parse_surgery(model.enlarge), data.image_size)
    _check_fit(opened, torch.zeros(1, data.in_channels, *data.image_size), data)
    return opened


def _named(model: ModelConfig) -> ModelConfig:
    """A network without weights of another run, with its own strides written out."""
    name = model.model
    check_name(name)
    if Path(name).exists():
        raise InputError(f"model={name}: these are weights; begin with them by init_from (--init-from {name})")
    if ":" not in name:
        # Nothing is interpolated without upsampling: one network, one configuration.
        mode = ModelConfig.upsample_mode if model.upsample == 1 else model.upsample_mode
        return replace(model, strides=str(models.parse_strides(name, model.strides)), upsample_mode=mode)
    if model.strides is not None or model.upsample != 1:
        raise InputError(
            f"model={name}: strides and upsample are for networks of ours; expected enlarge instead, such as "
            "upsample=2 or last"
        )
    return model


def _held(model: ModelConfig, opened: OpenedNetwork) -> ModelConfig:
    """What the weights in ``init_from`` decide, written out.

    Raises:
        InputError: something else is asked for, or the weights are not those that a run began with.
    """
    fit, ours = opened.fit, ":" not in opened.recipe.spec
    strides = str(models.parse_strides(opened.recipe.spec, fit.strides)) if ours else None
    held = {"model": opened.recipe.spec, "upsample": fit.upsample, "upsample_mode": fit.upsample_mode}
    if model.strides is not None:
        held["strides"] = strides
    for key, value in held.items():
        if getattr(model, key) != value and (key == "model" or getattr(model, key) != getattr(ModelConfig, key)):
            raise InputError(
                f"{key}={getattr(model, key)}: {model.init_from} holds a network with {key}={value}; leave {key} out, "
                "and say with enlarge what to change"
            )
    digest = weights_sha256(opened.model)
    _same_weights(str(model.init_from), digest, model.init_sha256)
    return replace(
        model,
        strides=strides,
        upsample=fit.upsample,
        upsample_mode=fit.upsample_mode,
        init_sha256=digest,
    )


@torch.no_grad()
def _check_fit(opened: OpenedNetwork, image: torch.Tensor, data: Dataset) -> None:
    try:
        given = logits(opened.model(image))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{opened.recipe.spec} can't take images of {tuple(image.shape[1:])} from {data.name}: "
            f"{first_line(error)}; another --image-size may help"
        ) from error
    if given.ndim != 2 or given.shape[1] < data.num_classes:
        raise InputError(
            f"{opened.recipe.spec} gives {tuple(given.shape)} for an image of {data.name}, expected logits of at "
            f"least {data.num_classes} classes"
        )

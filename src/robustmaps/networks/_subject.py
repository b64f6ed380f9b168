"""A network and the images it is looked at with."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from robustmaps.config import DataConfig, images_needed
from robustmaps.data import Dataset
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import check_values, move
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.models import Pool
from robustmaps.networks._data import choose_images, load_data
from robustmaps.networks._libraries import Fit, check_name
from robustmaps.networks._open_model import open_model
from robustmaps.networks._opened import OpenedNetwork
from robustmaps.networks._takes import check_strides, check_takes
from robustmaps.networks._weights import NAME_ORDER, UNKNOWN_BUDGET, listed, same_classes, unknown_order


@dataclass(frozen=True)
class Subject:
    """A network, some images with labels, on one device, and a budget.

    Attributes:
        network: opened.
        x, y: images (N, C, H, W) in [0, 1] and labels (N,).
        data: where they come from.
        norm, eps: the budget.
    """

    network: OpenedNetwork
    x: Tensor
    y: Tensor
    data: Dataset
    norm: str
    eps: float


def open_subject(
    model: str,
    *,
    opened: OpenedNetwork | None = None,
    data: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    split: Literal["test", "validation"] = "test",
    samples: int | None = None,
    eps: float | None = None,
    norm: str | None = None,
    weights: str | None = None,
    strides: str | None = None,
    pool: Pool | None = None,
    classes: str | None = None,
    seed: int = 0,
    device: str = "auto",
    watcher: Watcher = ignore,
) -> Subject:
    """Open a network, load images for it and settle a budget.

    Args:
        model: what `open_model` takes.
        opened: the network, where the caller has opened it and it does not depend on the images.
        data: the images; those that the network was trained on if left out, the digits for a network of ours where
            none are known. Labels
            follow the order of the classes that the network was trained on, where it records one.
        image_size: resize images to this many pixels a side.
        channels: of the images, 1 or 3; the data set's own where None.
        split: which images.
        samples: how many, drawn evenly from the classes; None for all.
        eps: the budget's radius; the one the network was trained for if left out, 8/255 where none is known.
        norm: the budget's norm; likewise, l_inf where none is known.
        weights: a file with weights for a network that is named, see `open_model`.
        strides: of a network of ours.
        pool: likewise.
        classes: names of the network's outputs in their order, as in `DataConfig`; the recorded order if left out.
        seed: of the weights of an untrained network.
        device: where to compute.
        watcher: called while a data set is decoded for the first time.

    Raises:
        InputError: a network, data or a budget that can't be used, or that don't fit each other.
    """
    check_built_in(model, strides, pool)
    if samples is not None:
        check_whole("samples", samples, 1)
    if opened is None and Path(model).exists():
        opened = open_model(model, weights=weights)
    known = None if opened is None else opened.data
    spec = model if opened is None else opened.recipe.spec
    if data is None and known is None and ":" in spec:
        raise images_needed(model)
    config = known or DataConfig()
    config = replace(
        config,
        data=data or config.data,
        image_size=image_size or config.image_size,
        channels=channels or config.channels,
        classes=config.classes if classes is None else classes,
    )
    loaded = load_data(config, watcher)
    check_strides(model, strides, loaded.image_size, loaded.name)
    if opened is not None and opened.classes is not None and opened.classes != loaded.classes:
        if classes is None and sorted(opened.classes) == sorted(loaded.classes):  # labels agree with the outputs
            loaded = load_data(config, watcher, classes=opened.classes)
        elif not same_classes(opened.classes, loaded.classes):
            warnings.warn(
                f"data={loaded.name}: has {listed(loaded.classes)}; {model} was trained on {listed(opened.classes)}: "
                "what depends on labels (accuracy, margin) says nothing",
                stacklevel=2,
            )
    x, y = choose_images(loaded, split, samples)
    fit = Fit.to_data(loaded, strides=strides, pool=pool, seed=seed)
    network = opened or open_model(model, fit, weights)
    check_takes(network.model, model, loaded)
    if network.trained and config.classes is None and network.classes is None:
        why = unknown_order(loaded, network.data)
        if why is not None:
            warnings.warn(f"{why}: what depends on labels (accuracy, margin) says nothing; {NAME_ORDER}", stacklevel=2)
    budget = network.budget or UNKNOWN_BUDGET
    norm, eps = norm or budget[0], budget[1] if eps is None else eps
    check_eps(eps, norm)
    at = resolve_device(device)
    check_values(network.model)
    move(network.model, at)
    return Subject(network, x.to(at), y.to(at), loaded, norm, eps)


def check_built_in(model: str, strides: str | None, pool: Pool | None) -> None:
    """Refuse strides and a pool for what is no built-in network.

    Raises:
        InputError: such strides or such a pool, or nothing of that name.
    """
    check_name(model)
    if ":" not in model and not Path(model).exists():
        return
    for name, value, own in (("strides", strides, "strides"), ("pool", pool, "a pool")):
        if value is not None:
            raise InputError(f"{name}={value}: {model} has {own} of its own; expected the name of a built-in network")


def blank_image(network: OpenedNetwork, image_size: int | None, channels: int | None) -> Tensor:
    """An image (1, C, H, W) where nothing but its size matters; the network's own where that is not given."""
    side = image_size or network.image_px
    return torch.zeros(1, channels or network.fit.in_channels, side, side)

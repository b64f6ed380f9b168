"""From a configuration to a trained run folder."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps import models
from robustmaps.attacks import PGD
from robustmaps.data import Augmentation, Dataset, load
from robustmaps.defenses import AT, Defense, Standard
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json, write_text
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.random import derive_seed
from robustmaps.experiments._config import DataConfig, DefenseConfig, RunConfig, write_config
from robustmaps.experiments._records import COST
from robustmaps.training import Fit, RunFolder, fit

DESCRIPTION = "robustmaps"
"""The key of a checkpoint's header under which the network and its data are described."""


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        folder: the run folder.
        config: what was run, with everything filled in.
        model: the network, with its best weights.
        data: the images.
        fit: history and best epoch.
    """

    folder: Path
    config: RunConfig
    model: models.Network
    data: Dataset
    fit: Fit


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with the network's own strides written out, so that one run has one name.

    Raises:
        InputError: an unknown network, or strides that don't fit it.
    """
    strides = models.parse_strides(config.model.model, config.model.strides)
    return replace(config, model=replace(config.model, strides=str(strides)))


def folder_of(config: RunConfig, out: str | Path) -> Path:
    """Where the run of that configuration lives below ``out``."""
    return Path(out) / resolve(config).name


def train(
    config: RunConfig,
    out: str | Path = "runs",
    *,
    resume: bool = False,
    data: Dataset | None = None,
    watcher: Watcher = ignore,
    decoding: Callable[[int, int | None], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Train what the configuration says, in a folder of its own below ``out``.

    Args:
        config: what to run.
        out: the folder that holds the runs.
        resume: go on where the run of this configuration stopped, or begin it.
        data: the loaded images, where the caller has them already.
        watcher: called as the work goes on.
        decoding: called while a data set is decoded for the first time.
        should_stop: asked after each step; True saves a checkpoint and raises `training.Interrupted`.

    Raises:
        InputError: a bad configuration, or the run exists and ``resume`` is False.
        training.Interrupted: ``should_stop`` said so.
        training.Diverged: the loss became NaN or infinite.
    """
    config = resolve(config)
    folder = RunFolder(Path(out) / config.name)
    if folder.last.exists() and not resume:
        raise InputError(
            f"{folder.path} already holds this run; continue it with --resume, or choose another --out or --seed"
        )
    data = data or load_data(config.data, decoding)
    model = create_model(config, data)
    if not folder.config.exists():
        write_text(folder.config, write_config(config))
    if not (folder.path / COST).exists():
        write_json(folder.path / COST, image_cost(model, data).to_dict())
    result = fit(
        model,
        data,
        create_defense(config.defense),
        config.training,
        out=folder.path,
        resume=resume,
        description={DESCRIPTION: json.dumps(describe_model(config, data))},
        watcher=watcher,
        should_stop=should_stop,
    )
    return TrainedRun(folder.path, config, model, data, result)


def image_cost(model: nn.Module, data: Dataset) -> models.Cost:
    """What one image costs the network; nothing is computed, and the network is left as it is."""
    image = torch.zeros(1, data.in_channels, *data.image_size, device="meta")
    return models.measure_cost(copy.deepcopy(model).to("meta"), image)


def load_data(config: DataConfig, decoding: Callable[[int, int | None], None] | None = None) -> Dataset:
    """The images that the configuration names."""
    # The command line and YAML know one kind of number; from 1 on it counts images.
    validation = int(config.validation) if config.validation >= 1 else config.validation
    data = load(config.data, validation=validation, image_size=config.image_size, progress=decoding)
    return replace(data, augmentation=Augmentation()) if config.augment == "none" else data


def choose_images(data: Dataset, split: Literal["test", "validation"], samples: int | None) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels (N,) of a split, drawn evenly from the classes; all where None.

    Raises:
        InputError: the split is empty, or has fewer images.
    """
    images = data.test if split == "test" else data.validation
    if len(images) == 0:
        raise InputError(f"{data.name}: the {split} split is empty")
    return (images if samples is None else images.subset(samples)).tensors()


def create_model(config: RunConfig, data: Dataset) -> models.Network:
    """The untrained network, drawn from the run's seed; the global random state is left as it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(config.training.seed, "weights"))
        return models.create(**_arguments(config, data))


def create_defense(config: DefenseConfig) -> Defense:
    """The defence that the configuration names."""
    if config.defense == "standard":
        return Standard()
    return AT(PGD(norm=config.norm, eps=config.eps, steps=config.steps, step_size=config.step_size))


def describe_model(config: RunConfig, data: Dataset) -> dict[str, object]:
    """What a checkpoint says of itself, so that it can be evaluated without its folder."""
    return {
        "model": _arguments(config, data),
        "data": {**asdict(config.data), "data": _found_anywhere(config.data.data)},
        "classes": list(data.classes),
        "norm": config.defense.norm,
        "eps": config.defense.eps,
    }


def _found_anywhere(spec: str) -> str:
    """A path that still holds when the checkpoint is used from another folder."""
    return str(Path(spec).resolve()) if Path(spec).exists() else spec


def _arguments(config: RunConfig, data: Dataset) -> dict[str, Any]:
    """The arguments of `models.create`."""
    return {
        "name": config.model.model,
        "num_classes": data.num_classes,
        "strides": str(models.parse_strides(config.model.model, config.model.strides)),
        "in_channels": data.in_channels,
        "mean": list(data.mean),
        "std": list(data.std),
        "upsample": config.model.upsample,
        "upsample_mode": config.model.upsample_mode,
    }

"""The images that a configuration names."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor

from robustmaps.data import Augmentation, Dataset, load
from robustmaps.engine.errors import InputError
from robustmaps.experiments._config import DataConfig


def load_data(config: DataConfig, decoding: Callable[[int, int | None], None] | None = None) -> Dataset:
    """The images that the configuration names."""
    # The command line and YAML know one kind of number; from 1 on it counts images.
    validation = int(config.validation) if config.validation >= 1 else config.validation
    data = load(config.data, validation=validation, image_size=config.image_size, progress=decoding)
    if config.train_samples is not None:
        if not 1 <= config.train_samples <= len(data.train):
            raise InputError(
                f"train_samples={config.train_samples}: {data.name} has {len(data.train)} training images besides "
                f"{len(data.validation)} for validation"
            )
        data = replace(data, train=data.train.subset(config.train_samples))
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

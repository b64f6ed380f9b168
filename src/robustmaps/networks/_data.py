"""The images that a configuration names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from robustmaps.config import DataConfig
from robustmaps.data import Dataset, load, load_extra
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Watcher, decoding, ignore


def load_data(config: DataConfig, watcher: Watcher = ignore, *, classes: Sequence[str] | None = None) -> Dataset:
    """The images that the configuration names.

    Args:
        config: the configuration.
        watcher: called while a data set is decoded for the first time.
        classes: the order of the class names, instead of the configuration's.
    """
    data = load(
        config.data,
        validation=config.validation,
        image_size=config.image_size,
        classes=config.classes if classes is None else classes,
        resized_crop=True if config.augment == "resized-crop" else None,
        progress=decoding(watcher),
    )
    if config.train_samples is not None:
        if not 1 <= config.train_samples <= len(data.train):
            raise InputError(
                f"train_samples={config.train_samples}: {data.name} has {len(data.train)} training images besides "
                f"{len(data.validation)} for validation"
            )
        data = replace(data, train=data.train.subset(config.train_samples))
    if config.augment == "none":
        data = data.without_augmentation()
    if config.extra_data is None:
        return data
    return replace(data, extra=load_extra(config.extra_data, data, config.extra_share))


def choose_images(data: Dataset, split: Literal["test", "validation"], samples: int | None) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels (N,) of a split, drawn evenly from the classes; all where None.

    Raises:
        InputError: the split is empty, or has fewer images.
    """
    images = data.test if split == "test" else data.validation
    if len(images) == 0:
        raise InputError(f"{data.name}: the {split} split is empty")
    return (images if samples is None else images.subset(samples)).tensors()

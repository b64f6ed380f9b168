"""The images that a configuration names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from torch import Tensor

from robustmaps.config import DataConfig, Split
from robustmaps.data import KNOWN, REPEATED, TURNED_GREY, Dataset, ImageSet, load, load_extra
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.progress import Progress, Watcher, decoding, ignore


def load_data(
    config: DataConfig, watcher: Watcher = ignore, *, classes: Sequence[str] | None = None, download: bool = True
) -> Dataset:
    """The images that the configuration names.

    Args:
        config: the configuration.
        watcher: called while a data set is decoded for the first time.
        classes: the order of the class names, instead of the configuration's.
        download: see `robustmaps.data.load`.
    """
    data = load(
        config.data,
        validation=config.validation,
        image_size=config.image_size,
        channels=config.channels,
        classes=config.classes if classes is None else classes,
        resized_crop=True if config.augment == "resized-crop" else None,
        progress=decoding(watcher),
        download=download,
    )
    for note in data.notes:
        if note in (REPEATED, TURNED_GREY):  # asked for, and of weight for what an attack may do
            watcher(Progress(note, len(data.train), len(data.train), "training images"))
    if config.train_samples is not None:
        if not 1 <= config.train_samples <= len(data.train):
            raise InputError(
                f"train_samples={config.train_samples}: {data.name} has {len(data.train)} training images besides "
                f"{len(data.validation)} for validation"
            )
        data = replace(data, train=data.train.subset(config.train_samples))
    plain = config.augment == "published" and config.data in KNOWN and KNOWN[config.data].published_plain
    if config.augment == "none" or plain:
        data = data.without_augmentation()
    if config.extra_data is None:
        return data
    return replace(data, extra=load_extra(config.extra_data, data, config.extra_share))


def choose_images(data: Dataset, split: Split, samples: int | None) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1] and labels (N,) of a split, drawn evenly from the classes; all where None.

    Training images are those that are left after validation, without augmentation.

    Raises:
        InputError: the split is empty, or has fewer images.
    """
    if split not in get_args(Split):
        raise unknown("split", split, get_args(Split))
    images: ImageSet = getattr(data, split)
    if len(images) == 0:
        raise InputError(f"{data.name}: the {split} split is empty")
    images = images if samples is None else images.subset(samples)
    if images.images.shape[2:] != data.test.images.shape[2:]:  # larger, for random crops
        images = images.centre(data.test.images.shape[-1])
    return images.tensors()

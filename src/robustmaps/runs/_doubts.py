"""Reasons to doubt an evaluation that only its run and its data set show."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from robustmaps.config import read_run_config
from robustmaps.data import Dataset, occur_in
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Doubt
from robustmaps.networks import NAME_ORDER, Checkpoint, load_data, unknown_order
from robustmaps.training import RunFolder

UNFINISHED = "unfinished-run"

# Copies of fewer test images than this share change a rate by less than a tenth of a point.
_COPIES = 1 / 1000


def unfinished(checkpoint: Checkpoint) -> Doubt | None:
    """Is the training of the run folder that contains the weights at its last epoch?"""
    if checkpoint.path is None:
        return None
    folder = RunFolder(checkpoint.path.parent)
    if checkpoint.path.name != folder.best.name or not folder.config.exists():
        return None
    try:
        epochs = read_run_config(folder.config).training.epochs
        done = len(folder.read_history())
    except InputError:  # a damaged file, which says nothing about the weights
        return None
    if done >= epochs:
        return None
    return Doubt(
        UNFINISHED,
        f"training is at epoch {done} of {epochs}, so the weights are provisional",
        "continue it with robustmaps train --resume, and evaluate again",
    )


def class_order(checkpoint: Checkpoint, data: Dataset) -> Doubt | None:
    """Is the order of the network's outputs unknown, and are the data's classes numbers in the order of text?"""
    if checkpoint.classes is not None or checkpoint.trained_classes is not None:
        return None
    why = unknown_order(data, checkpoint.data)
    return None if why is None else Doubt("label-order", why, NAME_ORDER)


def copied_images(checkpoint: Checkpoint, data: Dataset, x: Tensor, split: str) -> Doubt | None:
    """Are some of the images (N, C, H, W) in [0, 1] also among the training images, although of another split?"""
    if split == "train":
        return None
    train = _trained_on(checkpoint, data).train.images
    if train.shape[2:] != x.shape[2:]:  # larger, for random crops
        top, left = ((train.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
        train = train[:, :, max(top, 0) : top + x.shape[2], max(left, 0) : left + x.shape[3]]
    if train.shape[1:] != x.shape[1:]:
        return None
    count = int(occur_in((255 * x).round().byte(), train).sum())
    if count <= _COPIES * len(x):
        return None
    return Doubt(
        "copied-images",
        f"{count} of the {len(x)} {split} images are also training images ({100 * count / len(x):.2g} %)",
        "remove the copies from the training images and train again, or evaluate on other images",
    )


def _trained_on(checkpoint: Checkpoint, data: Dataset) -> Dataset:
    """The network's own training images, where these are another data set that is at hand."""
    known = checkpoint.data
    # Others may have to be downloaded.
    if known is None or known.data == data.spec or not Path(known.data).exists():
        return data
    try:
        return load_data(replace(known, extra_data=None))
    except InputError:
        return data

"""What the sources that are arrays already (IDX, NPZ, digits) have in common."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.decode import resize
from robustmaps.data.source import Block, Progress
from robustmaps.engine.errors import InputError

_CHUNK = 1024


def numbered_classes(count: int) -> tuple[str, ...]:
    """Class names for labels without names: ``0``, ``1``, ..."""
    return tuple(map(str, range(count)))


def classes_of(where: str, labels: NDArray[np.integer]) -> tuple[str, ...]:
    """The numbered classes of training labels.

    Raises:
        InputError: there are more classes than labels, so that some have no image.
    """
    count = int(labels.max()) + 1
    if count > len(labels):
        raise InputError(
            f"{where}: label {count - 1} among {len(labels)} images; expected labels from 0 on, each with an image"
        )
    return numbered_classes(count)


def check_labels(where: str, labels: NDArray[Any], images: NDArray[Any], classes: int | None = None) -> None:
    """Refuse labels that are not one whole number in 0..classes-1 for each image.

    Raises:
        InputError: naming ``where``.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{where}: labels of type {labels.dtype} and shape {labels.shape}: expected whole numbers, (N,)"
        )
    if len(labels) != len(images):
        raise InputError(f"{where}: {len(labels)} labels for {len(images)} images; expected one label for each image")
    if not len(labels):
        raise InputError(f"{where}: empty; expected at least one image")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = f"0 to {classes - 1}" if classes else "0 and up"
        raise InputError(f"{where}: label {low if low < 0 else high} out of range; expected {allowed}")


def array_blocks(
    split: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    classes: tuple[str, ...],
    image_size: int | None,
    progress: Progress | None,
) -> Iterator[Block]:
    """Cut an array of images, uint8, (N, C, H, W), into blocks, resized where asked."""
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        if image_size is not None:
            chunk = np.stack([resize(image, image_size) for image in chunk])
        yield Block(split, chunk, [classes[label] for label in labels[start : start + _CHUNK]])
        if progress:
            progress(start + len(chunk), len(images))

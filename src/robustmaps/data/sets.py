"""The values that the data layer yields: a split of labelled images, and a data set of three splits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation
from robustmaps.data.splits import stratified
from robustmaps.engine.errors import InputError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split: images as bytes, and their labels.

    Attributes:
        images: uint8, (N, C, H, W); on the CPU it may be a private memory map of a file.
        labels: int64, (N,), on the same device.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images of type {self.images.dtype} and shape {tuple(self.images.shape)}: "
                "expected uint8 of shape (N, C, H, W)"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"labels of type {self.labels.dtype} and shape {tuple(self.labels.shape)}: "
                f"expected int64 of shape ({len(self.images)},), one for each image"
            )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device; small sets are moved there once and stay."""
        return ImageSet(self.images.to(device), self.labels.to(device))

    def subset(self, rows: Tensor | int, *, seed: int = 0) -> "ImageSet":
        """Copy the images of these rows or, for a number, that many, chosen stratified by class.

        Stored sets are often sorted by class, so the first images would be no sample. The choice depends on ``seed``
        alone; asking for at least as many images as there are gives the set itself.
        """
        if isinstance(rows, int):
            if isinstance(rows, bool) or rows < 1:
                raise InputError(f"subset({rows!r}): expected a number of images of at least 1")
            if rows >= len(self):
                return self
            rows = stratified(self.labels.cpu(), rows, seed=seed, purpose="subset")
        rows = rows.to(self.images.device)
        return ImageSet(self.images[rows], self.labels[rows])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], (N, C, H, W), and their labels: four times the memory of the set."""
        return to_unit(self.images), self.labels


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images to learn from, to choose checkpoints by, and to report on.

    Attributes:
        name: a short name, fit for a file name.
        train: what is learnt from; it shares no image with the other two.
        validation: cut from the training images, for every choice made while training; may be empty.
        test: for the final report only.
        classes: the class names in the order of the labels.
        mean: per channel, of the training images in [0, 1].
        std: per channel, likewise.
        augmentation: the one recommended for this set.
        spec: what was asked for.
        fingerprint: hash of the decoded images, labels and class names of the source; the same wherever it is stored.
        notes: what the reader of a result should know, such as a test split that the source did not come with.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    spec: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """The number of channels: 1 for grey images, 3 for colour."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]


def to_unit(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; a division, since multiplying by 1/255 rounds some values differently."""
    return images.to(torch.float32).div_(255)

"""The values of the data package: a split of labelled images, and a data set of three splits."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation, ResizedCrop
from robustmaps.data.blocks import Blocks
from robustmaps.data.splits import stratified
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_whole


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split: images as bytes, and their labels.

    Attributes:
        images: uint8, (N, C, H, W); on the CPU possibly a private memory map of a file.
        labels: int64, (N,), on the same device.
        blocks: the checksums of the file that the images are a memory map of, if any; the methods verify what they
            read. Call ``verify`` before reading ``images`` directly.
    """

    images: Tensor
    labels: Tensor
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise InputError(
                f"images of type {self.images.dtype} and shape {tuple(self.images.shape)}: "
                "expected uint8 of shape (N, C, H, W)"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"labels of type {self.labels.dtype} and shape {tuple(self.labels.shape)}: "
                f"expected int64 of shape ({len(self.images)},), one per image"
            )

    def __len__(self) -> int:
        return len(self.images)

    def verify(self, rows: Tensor | None = None) -> None:
        """Verify the images of these rows, or all, as far as they have not been.

        Raises:
            Damaged: they are not as they were written.
        """
        if self.blocks is not None:
            self.blocks.verify(rows)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on another device."""
        self.verify()
        return ImageSet(self.images.to(device), self.labels.to(device))

    def rows(self, count: int, *, seed: int = 0) -> Tensor:
        """Choose that many rows, stratified by class and ascending; all if there are no more.

        Stored sets are often sorted by class, so the first images would not be representative. The choice depends only
        on ``seed`` and the labels.
        """
        check_whole("count", count, 1)
        if count >= len(self):
            return torch.arange(len(self))
        return stratified(self.labels.cpu(), count, seed=seed, purpose="subset")

    def subset(self, rows: Tensor | int, *, seed: int = 0) -> "ImageSet":
        """Copy the images of these rows or, for a number, of those that `rows` chooses.

        Returns the set itself if the number covers all images.
        """
        if isinstance(rows, int):
            chosen = self.rows(rows, seed=seed)
            if len(chosen) == len(self):
                return self
            rows = chosen
        rows = rows.to(self.images.device)
        self.verify(rows)
        return ImageSet(self.images[rows], self.labels[rows])

    def centre(self, size: int) -> "ImageSet":
        """The central square of each image, as a view.

        Raises:
            InputError: the images are smaller.
        """
        height, width = self.images.shape[2:]
        if size > min(height, width):
            raise InputError(f"centre({size}): expected a size within the images, which are {height} x {width}")
        top, left = (height - size) // 2, (width - size) // 2
        return replace(self, images=self.images[:, :, top : top + size, left : left + size])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], (N, C, H, W), at four times the memory, and their labels."""
        self.verify()
        return to_unit(self.images), self.labels


@dataclass(frozen=True, eq=False)
class Extra:
    """More images, such as generated ones, for a fixed share of every batch (arXiv 2110.09468, arXiv 2302.04638).

    Attributes:
        images: same size and classes as the training images; possibly a memory map.
        share: the share of a batch that is drawn from them, in (0, 1), to the nearest whole image.
        fingerprint: a name and hash that identify them.
    """

    images: ImageSet
    share: float
    fingerprint: str

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise InputError(f"share={self.share!r}: expected a share of each batch above 0 and below 1, such as 0.7")
        if len(self.images) == 0:
            raise InputError("extra images: found none; expected at least one")

    def count(self, batch: int) -> int:
        """The number of extra images in a batch of that size."""
        return round(self.share * batch)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images for training, for choosing checkpoints and for the report.

    Attributes:
        name: a short name, safe in file names.
        train: the training images; they share no image with the other splits.
        validation: for every choice made while training, usually cut from the training images; may be empty.
        test: for the final report only.
        classes: the class names in the order of the labels.
        mean: mean per channel of the training images in [0, 1].
        std: standard deviation per channel, likewise.
        augmentation: the recommended augmentation.
        extra: images that a share of every training batch is drawn from, if any.
        spec: the name or path that was loaded.
        fingerprint: hash of the decoded images, labels and class names of the source, wherever it is stored.
        notes: remarks for readers of a result, such as a test split that the source did not have.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | ResizedCrop
    spec: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    extra: Extra | None = None

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
        """Height and width in pixels, as seen by networks."""
        if isinstance(self.augmentation, ResizedCrop):
            return self.augmentation.size, self.augmentation.size
        return self.train.images.shape[2], self.train.images.shape[3]

    def without_augmentation(self) -> "Dataset":
        """The same images, used in training as they are in testing."""
        cropped = isinstance(self.augmentation, ResizedCrop)
        train = self.train.centre(self.image_size[0]) if cropped else self.train
        return replace(self, train=train, augmentation=Augmentation())


def to_unit(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; a division, since multiplying by 1/255 rounds some values differently."""
    return images.to(torch.float32).div_(255)

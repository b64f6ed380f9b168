"""The values that the data layer yields: a split of labelled images, and a data set of three splits."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation, ResizedCrop
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

    def rows(self, count: int, *, seed: int = 0) -> Tensor:
        """That many rows, ascending, chosen stratified by class; all where there are no more.

        Stored sets are often sorted by class, so the first images would be no sample. The choice depends on ``seed``
        and the labels alone.
        """
        if isinstance(count, bool) or count < 1:
            raise InputError(f"subset({count!r}): expected a number of images of at least 1")
        if count >= len(self):
            return torch.arange(len(self))
        return stratified(self.labels.cpu(), count, seed=seed, purpose="subset")

    def subset(self, rows: Tensor | int, *, seed: int = 0) -> "ImageSet":
        """Copy the images of these rows or, for a number, of so many that `rows` chooses.

        Asking for at least as many images as there are gives the set itself.
        """
        if isinstance(rows, int):
            chosen = self.rows(rows, seed=seed)
            if len(chosen) == len(self):
                return self
            rows = chosen
        rows = rows.to(self.images.device)
        return ImageSet(self.images[rows], self.labels[rows])

    def centre(self, size: int) -> "ImageSet":
        """The square in the middle of each image, as a view.

        Raises:
            InputError: the images are smaller.
        """
        height, width = self.images.shape[2:]
        if size > min(height, width):
            raise InputError(f"centre({size}): larger than the images, which are {height} x {width}")
        top, left = (height - size) // 2, (width - size) // 2
        return ImageSet(self.images[:, :, top : top + size, left : left + size], self.labels)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images as float32 in [0, 1], (N, C, H, W), and their labels: four times the memory of the set."""
        return to_unit(self.images), self.labels


@dataclass(frozen=True, eq=False)
class Extra:
    """More images, such as generated ones, that a fixed share of every training batch is drawn from.

    Training with them is described in arXiv 2110.09468 and arXiv 2302.04638.

    Attributes:
        images: they, in the size and with the labels of the training images; may be a memory map.
        share: the share of a batch that is drawn from them, in (0, 1), to the nearest whole image.
        fingerprint: what tells them from others.
    """

    images: ImageSet
    share: float
    fingerprint: str

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not isinstance(self.share, int | float) or not 0 < self.share < 1:
            raise InputError(f"share={self.share!r}: expected a share of each batch above 0 and below 1, such as 0.7")
        if len(self.images) == 0:
            raise InputError("extra images: there are none")

    def count(self, batch: int) -> int:
        """How many images of a batch of that size are extra ones."""
        return round(self.share * batch)


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
        extra: images that a share of every training batch is drawn from; None for none.
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
        """Height and width in pixels, as networks see the images."""
        if isinstance(self.augmentation, ResizedCrop):
            return self.augmentation.size, self.augmentation.size
        return self.train.images.shape[2], self.train.images.shape[3]

    def without_augmentation(self) -> "Dataset":
        """The same images, trained on as they are tested on."""
        cropped = isinstance(self.augmentation, ResizedCrop)
        train = self.train.centre(self.image_size[0]) if cropped else self.train
        return replace(self, train=train, augmentation=Augmentation())


def to_unit(images: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; a division, since multiplying by 1/255 rounds some values differently."""
    return images.to(torch.float32).div_(255)

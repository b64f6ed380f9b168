"""The section of the images. No PyTorch here."""

from dataclasses import dataclass
from typing import Literal

from robustmaps.engine.errors import InputError


@dataclass(frozen=True)
class DataConfig:
    """The images.

    Attributes:
        data: data set: digits, cifar10, hf:OWNER/NAME, or the path of a folder, archive, IDX folder or .npz; see
            `robustmaps data list`
        classes: names of the classes in the order of the labels, with commas, or a text file with one a line (default:
            the data set's own; of folders, as text: 10 before 2)
        validation: part of the training images held out for choosing the best epoch; a fraction, or a number
        train_samples: number of training images, drawn evenly from the classes (default: all)
        image_size: side length in pixels to resize the images to (default: the data set's own)
        channels: channels of the images: 1 turns colours grey, 3 repeats grey (default: the data set's own)
        augment: augmentation: auto for what suits the data set (shifts and flips, or random resized crops), none,
            published (as auto, but none for svhn, mnist and fashion_mnist), or resized-crop for random resized crops of
            the given image size; the other splits then get the centre of images an eighth larger
        extra_data: npz file of extra training images, such as generated ones: image, uint8, (N, H, W, C), and label
            (default: none)
        extra_share: share of every batch that is drawn from the extra images; an epoch stays as long as without them
    """

    data: str = "digits"
    validation: float = 0.1
    train_samples: int | None = None
    image_size: int | None = None
    augment: Literal["auto", "none", "published", "resized-crop"] = "auto"
    extra_data: str | None = None
    extra_share: float = 0.7
    classes: str | None = None
    channels: int | None = None

    def check(self, base: "DataConfig") -> None:
        """Refuse what would be without effect, where it differs from what holds already.

        Raises:
            InputError: a share of extra images without any.
        """
        if self.extra_data is None and self.extra_share != base.extra_share:
            raise InputError(f"extra_share={self.extra_share:g}: there are no extra images; give extra_data")

    def __post_init__(self) -> None:
        if not 0 < self.extra_share < 1:
            raise InputError(f"extra_share={self.extra_share!r}: expected a share of each batch above 0 and below 1")

"""The data sets that have a name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownSet:
    """One line of the table of named data sets.

    Attributes:
        title: what it is, in a line.
        train: number of training images (validation images are cut from them).
        test: number of test images.
        classes: number of classes.
        channels: 1 or 3.
        size: ``H x W`` as it comes; ``varies`` where images differ.
        flip: whether training images are mirrored: where a mirror image is as likely as the image.
        hub: the id on the Hugging Face hub; None for what is embedded.
        mean: the published mean per channel; None to compute it.
        std: likewise.
        pad: the largest shift of a training image, in pixels.
        crop: side of the random resized crops that are trained on instead, unless ``image_size`` says otherwise.
        published_plain: whether the experiments of arXiv 2202.12435 train on its images as they are.
    """

    title: str
    train: int
    test: int
    classes: int
    channels: int
    size: str
    flip: bool
    hub: "HubId | None" = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pad: int = 4
    crop: int | None = None
    published_plain: bool = False

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Of its images in pixels, as they come; None where images differ."""
        height, _, width = self.size.partition(" x ")
        return (int(height), int(width)) if height.isdigit() else None

    def pad_at(self, side: int) -> int:
        """The largest shift of an image that was resized to a side: as large a part of it, in whole pixels."""
        stored = self.height_and_width
        return round(self.pad * side / stored[0]) if stored else self.pad


@dataclass(frozen=True)
class HubId:
    """Where a set lies on the Hugging Face hub.

    Attributes:
        repository: its id there, or a local folder.
        config: which of its configurations.
        label: the column of labels; None to find it from the features.
        revision: a commit, tag or branch.
        data_dir: a folder of the repository.
        splits: pairs of a split (``train``, ``validation``, ``test``) and its name there, instead of the usual names.
    """

    repository: str
    config: str | None = None
    label: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    splits: tuple[tuple[str, str], ...] = ()


KNOWN: dict[str, KnownSet] = {
    "digits": KnownSet(
        "scikit-learn's handwritten digits; embedded, nothing is downloaded", 1348, 449, 10, 1, "8 x 8", False, pad=1
    ),
    "cifar10": KnownSet(
        "CIFAR-10, small photographs",
        50_000,
        10_000,
        10,
        3,
        "32 x 32",
        True,
        HubId("uoft-cs/cifar10"),
        (0.4914, 0.4824, 0.4467),
        (0.2471, 0.2435, 0.2617),
    ),
    "cifar100": KnownSet(
        "CIFAR-100, small photographs, fine labels",
        50_000,
        10_000,
        100,
        3,
        "32 x 32",
        True,
        HubId("uoft-cs/cifar100", label="fine_label"),
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
    ),
    "svhn": KnownSet(
        "Street View House Numbers, cropped digits",
        73_257,
        26_032,
        10,
        3,
        "32 x 32",
        False,
        HubId("ufldl-stanford/svhn", config="cropped_digits"),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        published_plain=True,
    ),
    "mnist": KnownSet(
        "MNIST, handwritten digits",
        60_000,
        10_000,
        10,
        1,
        "28 x 28",
        False,
        HubId("ylecun/mnist"),
        (0.0,),
        (1.0,),
        published_plain=True,
    ),
    "fashion_mnist": KnownSet(
        "Fashion-MNIST, articles of clothing",
        60_000,
        10_000,
        10,
        1,
        "28 x 28",
        False,
        HubId("zalando-datasets/fashion_mnist"),
        (0.0,),
        (1.0,),
        published_plain=True,
    ),
    "tiny_imagenet": KnownSet(
        "Tiny ImageNet, photographs of 200 classes",
        100_000,
        10_000,
        200,
        3,
        "64 x 64",
        True,
        HubId("zh-plus/tiny-imagenet"),
        (0.4601, 0.4330, 0.3732),
        (0.2647, 0.2481, 0.2594),
    ),
    "imagenette": KnownSet(
        "Imagenette, ten easy classes of ImageNet, at 128 x 128",
        9_469,
        3_925,
        10,
        3,
        "varies",
        True,
        HubId("frgfm/imagenette", revision="refs/convert/parquet", data_dir="160px"),
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        crop=128,
    ),
}

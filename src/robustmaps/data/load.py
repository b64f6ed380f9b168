"""Loading of a data set of three splits from what the user names."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robustmaps.data.augment import Augmentation, ResizedCrop
from robustmaps.data.cache import decoded, fetch
from robustmaps.data.class_order import in_order
from robustmaps.data.known import KNOWN
from robustmaps.data.sets import Dataset, ImageSet
from robustmaps.data.source import Progress
from robustmaps.data.sources.channels import REPEATED, check_channels
from robustmaps.data.sources.hub import Hub
from robustmaps.data.sources.registry import resolve
from robustmaps.data.splits import held_out, part_size
from robustmaps.data.store import Stored
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_whole


def prepare(
    spec: str | Path,
    *,
    cache_dir: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    resized_crop: bool | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Stored:
    """Decode a data set into the cache if necessary, so that the next :func:`load` is instant.

    Args:
        spec: see :func:`load`.
        cache_dir: the cache folder; default ``$ROBUSTMAPS_CACHE`` or ``~/.cache/robustmaps``.
        image_size: resize the shorter side to this many pixels and crop the centre to a square.
        channels: 1 turns colours grey, 3 repeats grey; None for the set's own.
        resized_crop: see :func:`load`; images for random crops are stored an eighth larger.
        progress: called with the number of images decoded and the total, if known.
        refresh: decode again even if cached; needed when a hub set has changed, which can't be detected.

    Raises:
        InputError: the spec is unknown or does not name a usable data set.
    """
    if image_size is not None:
        check_whole("image_size", image_size, 1)
    check_channels(channels)
    crop = _crop(spec, image_size, resized_crop)
    size = image_size if crop is None else stored_size(crop)
    return fetch(
        resolve(spec), cache_dir=cache_dir, image_size=size, channels=channels, progress=progress, refresh=refresh
    )


def load(
    spec: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    cache_dir: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    resized_crop: bool | None = None,
    classes: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    download: bool = True,
) -> Dataset:
    """Load a data set, decoding it into the cache the first time.

    Args:
        spec: a name in :data:`~robustmaps.data.known.KNOWN` (``digits``, ``cifar10``, ...), ``hf:owner/name`` or
            ``hf:FOLDER``, a folder or tar archive of class folders (under ``train/`` and ``test/``, or directly), a
            folder of IDX files, or an ``.npz``.
        validation: the part of the training images held out for choices made while training, stratified: a fraction
            below 1 or a number of images. A source's own validation split is used instead: all of it, that number of
            images, or none for 0.
        seed: selects the held-out images; the test split never depends on it.
        cache_dir: see :func:`prepare`.
        image_size: see :func:`prepare`; with random resized crops, the side of the crops.
        channels: see :func:`prepare`.
        resized_crop: train on random resized crops, and test on the centre of images resized to 9/8 of ``image_size``
            (144 and 128 pixels). None: only for named sets where that is usual (Imagenette).
        classes: the class names in the order of the labels, as a sequence, separated by commas, or a text file with one
            a line; they may include classes without images. None for the set's own order: that of its labels, or for
            folders that of their names as text, as in torchvision's ``ImageFolder``.
        progress: see :func:`prepare`.
        download: False for plans, which need counts and shapes: where a set of the hub is not in the cache, as many
            black images of its size take its place, with no fingerprint.

    Raises:
        NotHere: with ``download`` False, the set is not in the cache and its shape is not known.
        InputError: the spec is unknown or not a usable data set, ``classes`` lacks one of its classes, ``validation``
            is out of range, or crops are asked for without their size.
    """
    name = resolve(spec).name
    crop = _crop(spec, image_size, resized_crop)
    size = image_size if crop is None else stored_size(crop)
    stored = None if download else _without_download(spec, cache_dir, size, channels)
    if stored is None:
        stored = prepare(
            spec,
            cache_dir=cache_dir,
            image_size=image_size,
            channels=channels,
            resized_crop=resized_crop,
            progress=progress,
        )
    if classes is not None and stored.fingerprint:
        stored = in_order(stored, classes)
    train, held, notes = _validation(stored, validation, seed)
    known = KNOWN.get(str(spec))
    _, found, height, width = train.images.shape
    # Grey images that were repeated are as likely to be digits as before.
    coloured = found == 3 and REPEATED not in stored.notes
    test, flip = stored.splits["test"], known.flip if known else coloured
    augmentation: Augmentation | ResizedCrop = Augmentation.recommended(3 if coloured else 1, height, width)
    if crop is not None:
        augmentation = ResizedCrop(crop, flip=flip)
        held, test = held.centre(crop), test.centre(crop)
    elif known:
        augmentation = Augmentation(min(known.pad_at(min(height, width)), min(height, width) - 1), flip)
    return Dataset(
        name=name,
        train=train,
        validation=held,
        test=test,
        classes=stored.classes,
        mean=(known and known.channels == found and known.mean) or stored.mean,
        std=(known and known.channels == found and known.std) or stored.std,
        augmentation=augmentation,
        spec=str(spec),
        fingerprint=stored.fingerprint,
        notes=(*stored.notes, *notes),
    )


class NotHere(InputError):  # noqa: N818 - named after what is so
    """A set of the hub that is not in the cache, of unknown shape."""


def _without_download(
    spec: str | Path, cache_dir: Path | None, image_size: int | None, channels: int | None
) -> Stored | None:
    """A set of the hub as decoded before, or black images in its known shape; None for a set that is no download."""
    source = resolve(spec)
    if not isinstance(source, Hub) or Path(source.id.repository).is_dir():
        return None
    stored = decoded(source, cache_dir=cache_dir, image_size=image_size, channels=channels)
    if stored is not None:
        return stored
    known = KNOWN.get(str(spec))
    size = (image_size, image_size) if image_size else known and known.height_and_width
    if known is None or not size:
        raise NotHere(f"{spec}: not downloaded yet, and the number and size of its images are not known")
    splits = {
        name: ImageSet(
            torch.zeros(count, channels or known.channels, *size, dtype=torch.uint8),
            torch.arange(count) % known.classes,
        )
        for name, count in (("train", known.train), ("test", known.test))
    }
    grey = (0.5,) * (channels or known.channels)
    return Stored(splits, tuple(map(str, range(known.classes))), grey, grey, (), "")


def describe(dataset: Dataset) -> dict[str, object]:
    """The values that ``robustmaps data show`` prints, ready for JSON."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {split: Counter(images.labels.tolist()) for split, images in splits.items()}
    return {
        "name": dataset.name,
        "spec": dataset.spec,
        "fingerprint": dataset.fingerprint,
        "images": {split: len(images) for split, images in splits.items()},
        "channels": dataset.in_channels,
        "height_px": dataset.image_size[0],
        "width_px": dataset.image_size[1],
        "classes": {
            name: {split: counts[split][label] for split in splits} for label, name in enumerate(dataset.classes)
        },
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "augmentation": dataset.augmentation.to_dict(),
        "notes": list(dataset.notes),
    }


def stored_size(crop: int) -> int:
    """Side in pixels of the square images that crops of a given side are cut from: 144 for 128."""
    return crop * 9 // 8


def _crop(spec: str | Path, image_size: int | None, resized_crop: bool | None) -> int | None:
    """The side of the random resized crops; None without such crops."""
    known = KNOWN.get(str(spec))
    usual = known.crop if known else None
    if resized_crop is False or (resized_crop is None and usual is None):
        return None
    size = image_size or usual
    if size is None:
        raise InputError(f"{spec}: random resized crops need image_size (--image-size), such as 128")
    return size


def _validation(stored: Stored, validation: float, seed: int) -> tuple[ImageSet, ImageSet, list[str]]:
    train, own = stored.splits["train"], stored.splits.get("validation")
    if own is None:
        count = part_size(validation, len(train), "validation")
        rows = held_out(train.labels, count, seed=seed, purpose="validation", groups=stored.copies)
        return *_take_out(train, rows), []
    asked = part_size(validation, sys.maxsize, "validation")
    if not validation:
        return train, own.subset(torch.empty(0, dtype=torch.int64)), []
    count = asked if validation >= 1 else len(own)
    part = "" if count >= len(own) else f", {count} of them"
    return train, own.subset(count, seed=seed), [f"validation: the source's own split of {len(own)} images{part}"]


def _take_out(images: ImageSet, rows: Tensor) -> tuple[ImageSet, ImageSet]:
    """Divide a set into the remaining images and these rows, without reading or copying all the remaining ones.

    Remaining images at the end move into the gaps, so that the rest is one view of the memory map; only the pages
    written to use memory. The given set must not be used afterwards.
    """
    taken = images.subset(rows)
    size = len(images) - len(rows)
    stays = torch.ones(len(images), dtype=torch.bool)
    stays[rows] = False
    gaps = (~stays[:size]).nonzero()[:, 0]
    movers = stays[size:].nonzero()[:, 0] + size
    images.verify(movers)
    images.images[gaps] = images.images[movers]
    images.labels[gaps] = images.labels[movers]
    return replace(images, images=images.images[:size], labels=images.labels[:size]), taken

"""The folder of a decoded data set: how it is written, checked and opened."""

import hashlib
import json
import mmap
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from robustmaps.data.blocks import Blocks, block_checksums
from robustmaps.data.copies import copies
from robustmaps.data.decode import GREY
from robustmaps.data.memory_map import RowFile, map_rows
from robustmaps.data.sets import ImageSet
from robustmaps.data.source import UNSPLIT, Contents
from robustmaps.data.sources.arrays import classes_of
from robustmaps.data.sources.channels import REPEATED
from robustmaps.data.splits import held_out
from robustmaps.data.statistics import channel_statistics
from robustmaps.engine.checked import checksum
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.writing.durable import sync

#: Increased when the format of a stored folder changes; folders of other versions are rebuilt.
VERSION = 1

#: The share of a source without a test split that becomes the test split. The choice has its own seed, so that the test
#: images don't depend on the user's seed and never appear in another run's training images.
TEST_FRACTION = 0.25
_TEST_SEED = 0

_CHUNK = 1024
_SAMPLES = 64
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Stored:
    """A decoded data set as stored in its folder, before validation images are cut.

    Attributes:
        splits: ``train``, ``test`` and, if the source has its own, ``validation``.
        classes: the class names in the order of the labels.
        mean: mean per channel of the training images in [0, 1].
        std: standard deviation per channel, likewise.
        notes: what was done besides decoding.
        fingerprint: hash of images, labels and class names.
        copies: rows of identical training images; empty if not known.
    """

    splits: dict[str, ImageSet]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]
    fingerprint: str
    copies: tuple[tuple[int, ...], ...] = ()


def write(contents: Contents, folder: Path) -> None:
    """Decode a source into an existing empty folder; ``meta.json`` is written last.

    Raises:
        InputError: the source is not a usable data set.
    """
    where = contents.where
    names = _write_images(contents, folder)
    _require_splits(where, set(names))
    classes = contents.classes or _found_classes(contents, names)
    if len(classes) < 2:
        raise InputError(
            f"{where}: found {len(classes)} class {', '.join(classes)!r}, but a classifier needs at least two"
        )
    name, times = Counter(classes).most_common(1)[0]
    if times > 1:
        raise InputError(f"{where}: {times} classes are called {name!r}; expected a name for each")
    number = {name: label for label, name in enumerate(classes)}
    for split, labels in names.items():
        _save_labels(folder, split, np.array([number[name] for name in labels], dtype=np.int64))
    notes = [*_settle_splits(folder, where, set(names)), *_order_notes(contents, classes), *contents.tally.notes()]
    _check_classes(folder, where, classes)

    splits = {
        split: read_split(folder, split) for split in ("train", "validation", "test") if _images(folder, split).exists()
    }
    mean, std = channel_statistics(splits["train"].images)
    for split, images in splits.items():
        np.save(_blocks(folder, split), block_checksums(images.images.numpy()), allow_pickle=False)
    files = [path for split in splits for path in (part(folder, split) for part in (_images, _labels, _blocks))]
    large = {_images(folder, split).name for split in splits}
    for path in files:
        sync(path)
    meta = {
        "version": VERSION,
        "splits": list(splits),
        "classes": list(classes),
        "mean": list(mean),
        "std": list(std),
        "notes": notes,
        "fingerprint": _fingerprint(splits, classes),
        "copies": copies(splits["train"].images),
        "files": {path.name: {"bytes": path.stat().st_size, "checksum": quick_checksum(path)} for path in files},
        "small": {path.name: whole_checksum(path) for path in files if path.name not in large},
    }
    write_json(folder / "meta.json", meta)


def read(folder: Path) -> Stored | None:
    """Open a stored folder; None if it is missing, unfinished, damaged or of another version.

    Verified are the description, labels, each file's size and samples of the images, whose blocks are verified when
    they are first read. Folders of earlier versions have no checksums of blocks.
    """
    try:
        meta = read_json(folder / "meta.json")
        intact = meta["version"] == VERSION and all(
            (folder / name).stat().st_size == file["bytes"] and quick_checksum(folder / name) == file["checksum"]
            for name, file in meta["files"].items()
        )
        intact = intact and all(whole_checksum(folder / name) == value for name, value in meta.get("small", {}).items())
        if not intact:
            return None
        return Stored(
            splits={
                split: _checked(folder, split) if "small" in meta else read_split(folder, split)
                for split in meta["splits"]
            },
            classes=tuple(meta["classes"]),
            mean=tuple(meta["mean"]),
            std=tuple(meta["std"]),
            notes=tuple(meta["notes"]),
            fingerprint=meta["fingerprint"],
            # Not in folders of version 0.2 and before.
            copies=tuple(map(tuple, meta.get("copies", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_split(folder: Path, split: str) -> ImageSet:
    """Map the images of one split and read its labels."""
    labels = np.load(_labels(folder, split), allow_pickle=False)
    return ImageSet(torch.from_numpy(map_rows(_images(folder, split))), torch.from_numpy(labels))


def _checked(folder: Path, split: str) -> ImageSet:
    """A split whose blocks are verified when they are first read."""
    images, path = read_split(folder, split), _images(folder, split)
    row_bytes = images.images[:1].numel()
    offset = path.stat().st_size - len(images) * row_bytes
    checksums = np.load(_blocks(folder, split), allow_pickle=False)
    mend = f"delete {folder}; the next command decodes the images again"
    return replace(images, blocks=Blocks(path, offset, row_bytes, len(images), checksums, mend))


def quick_checksum(path: Path) -> int:
    """CRC-32 of evenly spread samples of a file, or of all of a small file."""
    size = path.stat().st_size
    checksum = 0
    with path.open("rb") as file:
        for sample in range(_SAMPLES):
            file.seek(max(size - _SAMPLE_BYTES, 0) * sample // (_SAMPLES - 1))
            checksum = zlib.crc32(file.read(_SAMPLE_BYTES), checksum)
    return checksum


def whole_checksum(path: Path) -> str:
    """The checksum of a whole file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        return checksum(contents)


def _images(folder: Path, split: str) -> Path:
    return folder / f"{split}-images.npy"


def _labels(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def _blocks(folder: Path, split: str) -> Path:
    return folder / f"{split}-blocks.npy"


def _save_labels(folder: Path, split: str, labels: np.ndarray) -> None:
    np.save(_labels(folder, split), labels, allow_pickle=False)


def _write_images(contents: Contents, folder: Path) -> dict[str, list[str]]:
    """Store the images of every split with the same number of channels; return the class names."""
    files: dict[str, RowFile] = {}
    names: dict[str, list[str]] = {}
    with ExitStack() as stack:
        for block in contents.blocks:
            if block.split not in files:
                files[block.split] = stack.enter_context(RowFile(_images(folder, block.split)))
                names[block.split] = []
            files[block.split].append(block.images)
            names[block.split] += block.labels
        channels = max((file.channels for file in files.values()), default=0)
        for file in files.values():
            if file.channels < channels:
                file.widen()
    if channels == 1 or REPEATED in contents.tally.notes():
        contents.tally.forget(GREY)
    return names


def _found_classes(contents: Contents, names: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The classes of a source that does not name them."""
    found = {name for labels in names.values() for name in labels}
    if not contents.numbered or not all(name.isdecimal() for name in found):
        return tuple(sorted(found))
    return classes_of(contents.where, np.array([int(name) for labels in names.values() for name in labels]))


def _order_notes(contents: Contents, classes: tuple[str, ...]) -> list[str]:
    """What has to be known of class names that are numbers and were put in order here."""
    numbers = [name for name in classes if name.isdecimal()]
    if contents.classes or numbers == sorted(numbers, key=int):
        return []
    return [f"classes: in the order of text ({', '.join(classes[:3])}, ...), as torchvision's ImageFolder sorts them"]


def _require_splits(where: str, found: set[str]) -> None:
    if not found:
        raise InputError(f"{where}: found no images; expected a labelled set of images")
    if found == {UNSPLIT}:
        return
    if "train" not in found:
        raise InputError(f"{where}: missing split train, found only {', '.join(sorted(found))}; add train")
    if not found & {"test", "validation"}:
        raise InputError(
            f"{where}: missing split test, found only train; add test (or val, valid), "
            "or provide the images without splits to have a test split cut"
        )


def _settle_splits(folder: Path, where: str, found: set[str]) -> list[str]:
    """Make sure that there is a test split; return notes about it."""
    if found == {UNSPLIT}:
        _cut_test(folder, where)
        return [f"test: a fixed, stratified {TEST_FRACTION:.0%} of the images, since the source has no test split"]
    if "test" in found:
        return []
    _images(folder, "validation").rename(_images(folder, "test"))
    _labels(folder, "validation").rename(_labels(folder, "test"))
    return ["test: the source's validation split, since it has no test split"]


def _cut_test(folder: Path, where: str) -> None:
    whole = read_split(folder, UNSPLIT)
    count = max(round(TEST_FRACTION * len(whole)), 1)
    test = torch.zeros(len(whole), dtype=torch.bool)
    try:
        rows = held_out(whole.labels, count, seed=_TEST_SEED, purpose="test", groups=copies(whole.images))
        test[rows] = True
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    for split, mask in (("train", ~test), ("test", test)):
        rows = mask.nonzero()[:, 0]
        with RowFile(_images(folder, split)) as file:
            for start in range(0, len(rows), _CHUNK):
                file.append(whole.images[rows[start : start + _CHUNK]].numpy())
        _save_labels(folder, split, whole.labels[rows].numpy())
    _images(folder, UNSPLIT).unlink()
    _labels(folder, UNSPLIT).unlink()


def _check_classes(folder: Path, where: str, classes: tuple[str, ...]) -> None:
    present = np.unique(np.load(_labels(folder, "train"), allow_pickle=False))
    missing = [name for label, name in enumerate(classes) if label not in present]
    if missing:
        raise InputError(
            f"{where}: class {missing[0]!r} has no training image "
            f"({len(missing)} of {len(classes)} classes have none); add images or remove the class"
        )


def _fingerprint(splits: dict[str, ImageSet], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, classes]).encode())
    for split, images in splits.items():
        digest.update(json.dumps([split, list(images.images.shape)]).encode())
        digest.update(images.labels.numpy().data)
        for start in range(0, len(images), _CHUNK):
            digest.update(images.images[start : start + _CHUNK].numpy().data)
    return digest.hexdigest()

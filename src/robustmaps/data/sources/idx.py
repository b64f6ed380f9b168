"""IDX files: the form in which MNIST and its relatives are published."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.arrays import array_blocks, check_labels, classes_of
from robustmaps.data.sources.registry import SourceRow
from robustmaps.engine.errors import InputError

_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_BYTES = 8
_BEST_RATIO = 1032
"""Of gzip; more than this many times a file's size can't come out of it."""


@dataclass(frozen=True)
class Idx:
    """A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and ``t10k-...``, plain or ``.gz``."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def identity(self) -> str:
        """The path, and the sizes and modification times of the files."""
        files = [self._file(prefix, kind) for prefix in _PREFIXES.values() for kind in _KINDS]
        return f"idx {self.path} {[(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Read the four files; there are as many classes as the training labels say."""
        blocks = []
        classes: tuple[str, ...] = ()
        for split, prefix in _PREFIXES.items():
            images_file, labels_file = (self._file(prefix, kind) for kind in _KINDS)
            images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
            check_labels(str(labels_file), labels, images, len(classes) or None)
            classes = classes or classes_of(str(labels_file), labels)
            blocks.append(array_blocks(split, images[:, None], labels, classes, image_size, progress))
        return Contents(str(self.path), chain.from_iterable(blocks), classes)

    def _file(self, prefix: str, kind: str) -> Path:
        for name in (f"{prefix}-{kind}", f"{prefix}-{kind}.gz"):
            if (self.path / name).is_file():
                return self.path / name
        raise InputError(
            f"{self.path / f'{prefix}-{kind}'}: missing, and no .gz of it either; an IDX folder has four files"
        )


def is_idx_folder(path: Path) -> bool:
    """Whether a folder holds at least one of the four files, so that the others are missed by name."""
    return any(
        (path / f"{prefix}-{kind}{end}").is_file()
        for prefix in _PREFIXES.values()
        for kind in _KINDS
        for end in ("", ".gz")
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    try:
        size = path.stat().st_size
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _read_shape(path, file, dimensions)
            count = math.prod(shape)
            most = _BEST_RATIO * size if path.suffix == ".gz" else size
            if count > most:
                raise InputError(f"{path}: at most {most} bytes for the shape {shape}; its header is damaged")
            # One byte more shows that the file goes on.
            data = file.read(count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't be read ({error}); copy or download it again") from error
    if len(data) != count:
        found = len(data) if len(data) < count else f"more than {count}"
        raise InputError(f"{path}: {found} bytes for the shape {shape}; it is cut off or too long")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_shape(path: Path, file: BinaryIO | gzip.GzipFile, dimensions: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * dimensions)
    if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, _BYTES, dimensions)):
        raise InputError(
            f"{path}: no IDX file of bytes in {dimensions} dimensions; it starts with {header[:4].hex(' ')}"
        )
    return struct.unpack(f">{dimensions}I", header[4:])


ROW = SourceRow(
    name="idx",
    form="IDX-FOLDER",
    summary="IDX files, such as train-images-idx3-ubyte.gz",
    at=lambda path: Idx(path) if is_idx_folder(path) else None,
)

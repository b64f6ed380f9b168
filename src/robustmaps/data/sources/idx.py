"""IDX files: the form in which MNIST and its relatives are published."""

import gzip
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.arrays import array_blocks, check_labels, numbered_classes
from robustmaps.data.sources.registry import SourceRow
from robustmaps.engine.errors import InputError

_PREFIXES = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
_BYTES = 8


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
            classes = classes or numbered_classes(int(labels.max()) + 1)
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
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't be read ({error}); copy or download it again") from error
    start = 4 + 4 * dimensions
    if len(data) < start or data[:2] != b"\0\0" or (data[2], data[3]) != (_BYTES, dimensions):
        raise InputError(f"{path}: no IDX file of bytes in {dimensions} dimensions; it starts with {data[:4].hex(' ')}")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=dimensions, offset=4))
    if len(data) - start != int(np.prod(shape)):
        raise InputError(f"{path}: {len(data) - start} bytes for the shape {shape}; it is cut off or too long")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


ROW = SourceRow(
    name="idx",
    form="IDX-FOLDER",
    summary="IDX files, such as train-images-idx3-ubyte.gz",
    at=lambda path: Idx(path) if is_idx_folder(path) else None,
)

"""Folders of corrupted test images, in the format of CIFAR-10-C (arXiv 1903.12261)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustmaps.data.sources.arrays import check_labels
from robustmaps.data.sources.npy import DAMAGE
from robustmaps.data.store import whole_checksum
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular, short_hash

SEVERITIES = 5
_LABELS = "labels.npy"
_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class CorruptedImages:
    """The same N images under several corruptions, each at five severities.

    Attributes:
        folder: the folder of the files.
        names: names of the corruptions, sorted.
        labels: int64, (N,).
        shape: shape of an image, (C, H, W).
    """

    folder: Path
    names: tuple[str, ...]
    labels: Tensor
    shape: tuple[int, int, int]

    def images(self, name: str) -> Tensor:
        """The images of a corruption, uint8, (5, N, C, H, W), as a memory map of the file."""
        array = _open(self.folder / f"{name}.npy")
        channels, height, width = self.shape
        images = torch.from_numpy(array.reshape(SEVERITIES, -1, height, width, channels))
        return images.permute(0, 1, 4, 2, 3)

    def fingerprint(self) -> str:
        """A hash of the files' contents, all of which are read: about 1 s for CIFAR-10-C on a fast disk."""
        files = [self.folder / _LABELS, *(self.folder / f"{name}.npy" for name in self.names)]
        return short_hash([[file.name, file.stat().st_size, whole_checksum(file)] for file in files])


def open_corruptions(folder: str | Path) -> CorruptedImages:
    """Open and check a folder of ``labels.npy`` and a ``NAME.npy`` for each corruption.

    The images of a corruption are uint8, (5 * N, H, W, C): first all N at severity 1, then at severity 2 and so on. The
    labels are (5 * N,), in the same order, or (N,). Nothing is unpickled.

    Raises:
        InputError: the folder or its labels are missing, or a file has another format.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(f"{folder}: no such folder; expected one with {_LABELS} and a .npy file for each corruption")
    names = tuple(sorted(f.stem for f in path.glob("*.npy") if f.name != _LABELS and not f.name.startswith(".")))
    if not (path / _LABELS).is_file():
        raise InputError(f"{path}: missing {_LABELS}, found {len(names)} other .npy files; add it")
    if not names:
        raise InputError(
            f"{path}: only {_LABELS}; expected a .npy file for each corruption, such as gaussian_noise.npy"
        )
    shapes = {name: _image_shape(path / f"{name}.npy") for name in names}
    first = names[0]
    for name, shape in shapes.items():
        if shape != shapes[first]:
            raise InputError(f"{path / name}.npy: shape {shape}; expected {shapes[first]} as in {first}.npy")
    total, height, width, channels = shapes[first]
    return CorruptedImages(path, names, _read_labels(path / _LABELS, total), (channels, height, width))


def _image_shape(file: Path) -> tuple[int, int, int, int]:
    """The shape (5 * N, H, W, C) of a file of corrupted images."""
    array = _open(file)
    if array.dtype != np.uint8:
        raise InputError(f"{file}: type {array.dtype}; expected uint8")
    shape = array.shape if array.ndim != 3 else (*array.shape, 1)
    if len(shape) != 4 or shape[3] not in _CHANNELS or 0 in shape or shape[0] % SEVERITIES:
        raise InputError(
            f"{file}: shape {array.shape}; expected ({SEVERITIES} * N, H, W, C) with 1 or 3 channels: "
            f"N images at each of {SEVERITIES} severities"
        )
    return shape[0], shape[1], shape[2], shape[3]


def _read_labels(file: Path, total: int) -> Tensor:
    """The labels of the N images."""
    labels = _open(file)
    images = total // SEVERITIES
    if labels.ndim == 1 and len(labels) == total and np.issubdtype(labels.dtype, np.integer):
        if not (labels.reshape(SEVERITIES, images) == labels[:images]).all():
            raise InputError(f"{file}: labels differ between severities; expected all images of severity 1 first")
        labels = labels[:images]
    check_labels(str(file), labels, np.empty(images))
    return torch.from_numpy(labels.astype(np.int64))


def _open(file: Path) -> NDArray[Any]:
    check_regular(file)
    try:
        # A private map, since PyTorch accepts only writable arrays.
        array: NDArray[Any] = np.load(file, mmap_mode="c", allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{file}: can't be read as a plain array ({error}); save it again with numpy.save") from error
    return array

"""NumPy archives."""

import zipfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.source import UNSPLIT, Contents, Progress
from robustmaps.data.sources.arrays import array_blocks, check_labels, classes_of
from robustmaps.data.sources.npy import DAMAGE, read_member
from robustmaps.data.sources.registry import SourceRow
from robustmaps.engine.errors import InputError

_SPLIT_KEYS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
_WHOLE_KEYS = {UNSPLIT: ("images", "labels")}
_KEYS = {"classes", *(key for keys in (_SPLIT_KEYS, _WHOLE_KEYS) for pair in keys.values() for key in pair)}
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Npz:
    """``x_train, y_train, x_test, y_test``, or ``images, labels``; also ``classes``, the names of the classes.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), of bytes or of floats in [0, 1].
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def identity(self) -> str:
        """The path, the size and the modification time."""
        status = self.path.stat()
        return f"npz {self.path} {status.st_size} {status.st_mtime_ns}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Read the arrays; nothing is unpickled."""
        arrays, found = self._arrays()
        keys = _WHOLE_KEYS if "images" in arrays else _SPLIT_KEYS
        missing = [key for pair in keys.values() for key in pair if key not in arrays]
        if missing:
            raise InputError(
                f"{self.path}: missing {', '.join(missing)}, found {', '.join(found) or 'nothing'}; "
                "expected x_train, y_train, x_test, y_test, or images, labels"
            )
        classes = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else ()
        blocks = []
        shape: tuple[int, ...] | None = None
        for split, (images_key, labels_key) in keys.items():
            images = to_bytes(f"{self.path}: {images_key}", arrays[images_key])
            labels = arrays[labels_key]
            labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
            check_labels(f"{self.path}: {labels_key}", labels, images, len(classes) or None)
            if shape not in (None, images.shape[1:]):
                raise InputError(
                    f"{self.path}: {images_key} has images of shape {images.shape[1:]}, the others {shape}"
                )
            shape = images.shape[1:]
            classes = classes or classes_of(f"{self.path}: {labels_key}", labels)
            blocks.append(array_blocks(split, images, labels, classes, image_size, progress))
        return Contents(str(self.path), chain.from_iterable(blocks), classes)

    def _arrays(self) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """The arrays that are used, and the names of all."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                return {key: read_member(archive, members[key]) for key in members if key in _KEYS}, list(members)
        except DAMAGE as error:
            raise InputError(f"{self.path}: can't be read as an .npz of plain arrays ({error})") from error


def to_bytes(where: str, images: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring images to uint8, (N, C, H, W).

    Raises:
        InputError: the shape is no images', or the values are neither bytes nor floats in [0, 1].
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in _CHANNELS and images.shape[3] in _CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in _CHANNELS or 0 in images.shape[1:]:
        raise InputError(
            f"{where}: wrong shape {images.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise InputError(f"{where}: type {images.dtype}; expected uint8, or floats in [0, 1]")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if np.isnan(low):
        raise InputError(f"{where}: contains NaN; expected floats in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"{where}: values from {low:g} to {high:g}; expected floats in [0, 1] (divide bytes by 255)")
    rounded: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return rounded


ROW = SourceRow(
    name="npz",
    form="FILE.npz",
    summary="arrays x_train, y_train, x_test, y_test",
    at=lambda path: Npz(path) if path.is_file() and path.suffix.lower() == ".npz" else None,
)

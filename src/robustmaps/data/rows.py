"""Image arrays as ``.npy`` files: written row by row, read as private memory maps."""

import mmap
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_CHUNK = 1024
_READ_AHEAD_BYTES = 4 << 30
# The module names the flag from Python 3.12 on; without it, a map must fit in the machine's memory.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class RowFile:
    """An ``.npy`` file of images that grows, so that a source need not know its size in advance.

    A file of grey images becomes one of colour images when the first colour image arrives; from then on grey images
    are stored with three equal channels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._shape: tuple[int, ...] | None = None
        self._file: BinaryIO = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def channels(self) -> int:
        """Channels of the stored images; 0 as long as there are none."""
        return self._shape[0] if self._shape else 0

    def append(self, images: NDArray[np.uint8]) -> None:
        """Add images, uint8, (n, C, H, W)."""
        if self._shape is None:
            self._shape = images.shape[1:]
            self._write_header()
        if images.shape[1] > self.channels:
            self.widen()
        elif images.shape[1] < self.channels:
            images = images.repeat(self.channels, axis=1)
        self._file.write(np.ascontiguousarray(images).data)
        self.rows += len(images)

    def widen(self) -> None:
        """Turn stored grey images into colour images."""
        self.close()
        grey = map_rows(self.path)
        narrow = self.path.with_suffix(".grey")
        self.path.rename(narrow)
        self._shape = (3, *grey.shape[2:])
        self._file = self.path.open("wb")
        self._write_header()
        for start in range(0, len(grey), _CHUNK):
            self._file.write(grey[start : start + _CHUNK].repeat(3, axis=1).data)
        narrow.unlink()

    def close(self) -> None:
        """Write the final number of rows into the header; closing twice is harmless."""
        if self._file.closed:
            return
        if self._shape is not None:
            self._file.seek(0)
            self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # NumPy pads the header so that the first axis can grow in place.
        shape = (self.rows, *(self._shape or ()))
        npy.write_array_header_1_0(self._file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def map_rows(path: Path, start: int = 0) -> NDArray[np.uint8]:
    """Map an ``.npy`` file of bytes; what is written to the array stays in this process and never reaches the file.

    ``MAP_NORESERVE`` lets a writable private map be larger than the machine's memory, which ``np.load`` can't do.

    Args:
        path: the file.
        start: where in it the array's own header begins, such as that of an uncompressed member of an ``.npz``.

    Raises:
        ValueError: the file is no such array or is too short for its header.
    """
    with path.open("rb") as file:
        file.seek(start)
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(file)
        if dtype != np.uint8:
            raise ValueError(f"{path}: expected bytes (uint8), found {dtype}")
        if fortran_order:
            raise ValueError(f"{path}: in Fortran order; save np.ascontiguousarray(array)")
        offset = file.tell()
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        mapping = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    if len(mapping) <= _READ_AHEAD_BYTES and hasattr(mmap, "MADV_WILLNEED"):
        # One sequential read now instead of a random one for each image of the first shuffled epoch.
        mapping.madvise(mmap.MADV_WILLNEED)
    count = int(np.prod(shape))
    return np.frombuffer(mapping, dtype=np.uint8, count=count, offset=offset).reshape(shape)

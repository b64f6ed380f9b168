"""Image arrays as ``.npy`` files: written row by row, read as private memory maps."""

import ctypes
import math
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from robustmaps.data.sources.npy import read_header
from robustmaps.engine.memory import free_bytes

_CHUNK = 1024
_READ_AHEAD_BYTES = 4 << 30
# The mmap module names this flag since Python 3.13; without it, a map must fit in the machine's memory.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class RowFile:
    """A growing ``.npy`` file of images, for sources of unknown size.

    When the first colour image arrives, the file's grey images get three equal channels, as do later ones.
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
        """Channels of the stored images; 0 if there are none yet."""
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
    """Map an ``.npy`` file of bytes; writes to the array stay in this process and never reach the file.

    Unlike ``np.load``, ``MAP_NORESERVE`` allows a writable private map larger than the machine's memory.

    Args:
        path: the file.
        start: offset of the array's header, for example of an uncompressed member of an ``.npz``.

    Raises:
        ValueError: the file is not such an array or is too short for its header.
    """
    with path.open("rb") as file:
        file.seek(start)
        shape, fortran_order, dtype = read_header(file)
        if dtype != np.uint8:
            raise ValueError(f"{path}: expected bytes (uint8), found {dtype}")
        if fortran_order:
            raise ValueError(f"{path}: array in Fortran order; save np.ascontiguousarray(array) instead")
        offset = file.tell()
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        mapping = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    free = free_bytes(torch.device("cpu"))
    fits = len(mapping) <= _READ_AHEAD_BYTES and (free is None or 2 * len(mapping) <= free)
    if fits and hasattr(mmap, "MADV_WILLNEED"):
        # One sequential read now saves random reads in the first shuffled epoch.
        mapping.madvise(mmap.MADV_WILLNEED)
    count = math.prod(shape)
    if offset + count > len(mapping):
        raise ValueError(f"{path}: {len(mapping) - offset:,} bytes for the shape {shape}; it is cut off")
    return np.frombuffer(mapping, dtype=np.uint8, count=count, offset=offset).reshape(shape)


def expect_random_reads(images: Tensor) -> None:
    """Tell the system to read only the requested pages of a memory map.

    By default it also reads around each page, which suits sequential reads. If memory is short, those useless pages
    displace the ones needed next.

    Args:
        images: (N, C, H, W), on any device; only memory maps are affected.
    """
    _advise(images, [0], len(images), "MADV_RANDOM")


def read_ahead(images: Tensor, rows: Tensor) -> None:
    """Tell the system to start reading these rows of a memory map in the background.

    Args:
        images: (N, C, H, W), on any device; only memory maps are affected.
        rows: int64, (n,).
    """
    _advise(images, rows.sort().values.tolist(), 1, "MADV_WILLNEED")


def _advise(images: Tensor, starts: list[int], count: int, advice: str) -> None:
    """Call ``madvise`` for ``count`` rows from each start."""
    if _madvise is None or images.device.type != "cpu" or not len(images):
        return
    begin, step, code = images.data_ptr(), images.stride(0), getattr(mmap, advice)
    # From the first byte of a row to its last, which in a cropped view is more than its pixels.
    within = sum((n - 1) * s for n, s in zip(images.shape[1:], images.stride()[1:], strict=True)) + 1
    size = (count - 1) * step + within
    for start in starts:
        first = begin + start * step
        page = first - first % mmap.PAGESIZE
        # Only a hint, so its result does not matter.
        _madvise(page, first + size - page, code)


def _system_madvise() -> Callable[[int, int, int], int] | None:
    """The system's ``madvise``, which accepts the address of a tensor; None where there is none."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


_madvise = _system_madvise()

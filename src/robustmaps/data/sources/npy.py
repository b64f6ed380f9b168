"""Arrays in NumPy's format, whose headers are checked against what is there before memory is taken for them."""

import math
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

#: What reading a damaged array or archive raises.
DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, OverflowError, MemoryError),
    *(SyntaxError, RecursionError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_BEST_RATIO = 1032
"""Deflate can't do better: a longer array than this many times its compressed bytes is not there."""
_ENCRYPTED = 0x1
_CHUNK = 1 << 20


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of an array; the file is then at its first value.

    Raises:
        ValueError: the file is not an array of plain values.
    """
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if any(size < 0 for size in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, fortran_order, dtype


def check_announced(member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The bytes of an array's values by its header, which the member must have room for.

    Raises:
        ValueError: it has not, or it is encrypted.
    """
    if member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{member.filename} is encrypted")
    announced = math.prod(shape) * dtype.itemsize
    deflated = member.compress_type == zipfile.ZIP_DEFLATED
    there = min(member.file_size, _BEST_RATIO * (member.compress_size + 1)) if deflated else member.file_size
    if announced > there:
        raise ValueError(
            f"{member.filename}: announces {announced:,} bytes for the shape {shape}, but has at most {there:,}"
        )
    return announced


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of an ``.npz``.

    Raises:
        ValueError: it is no array of plain values, is encrypted, or announces more values than there are.
        zipfile.BadZipFile, zlib.error, EOFError, OSError: it is damaged.
    """
    with archive.open(member) as file:
        shape, fortran_order, dtype = read_header(file)
        announced = check_announced(member, shape, dtype)
        data = bytearray(announced)
        view, done = memoryview(data), 0
        while done < announced and (part := file.read(min(announced - done, _CHUNK))):
            view[done : done + len(part)] = part
            done += len(part)
        if done < announced or file.read(1):
            raise ValueError(f"{member.filename}: {done:,} bytes for the shape {shape}; it is cut off or too long")
    values = np.frombuffer(data, dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")

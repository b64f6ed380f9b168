"""Whole files of bytes that may be anything."""

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import check_regular
from robustmaps.engine.memory import free_bytes


def read_whole(path: str | Path, expected: str = "a file") -> bytes:
    """The bytes of a file.

    Raises:
        InputError: it is missing, is no regular file, can't be read, or does not fit in the free memory.
    """
    check_regular(path, expected)
    size, free = Path(path).stat().st_size, free_bytes(torch.device("cpu"))
    if free is not None and size > free:
        raise InputError(f"{path}: {size:,} bytes, more than the free memory ({free:,} bytes); expected {expected}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected {expected}") from error


def load_tensors(data: bytes, device: torch.device | str = "cpu") -> Any:
    """Plain values and tensors that `torch.save` wrote; no code of the file is run.

    The parts of the archive are verified, which PyTorch does not do. Files of PyTorch before 1.6 are no archives and
    have nothing to verify.

    Raises:
        Exception: of many types; the file is damaged, or holds other objects.
    """
    file = io.BytesIO(data)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(file) as parts:
            if sum(part.file_size for part in parts.infolist()) > len(data):
                raise zipfile.BadZipFile("packed, or overlapping parts")  # which PyTorch never writes
            if (broken := parts.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {broken}")
    file.seek(0)
    with warnings.catch_warnings():  # of PyTorch's, about files that it then refuses or reads
        warnings.simplefilter("ignore")
        return torch.load(file, map_location=device, weights_only=True)

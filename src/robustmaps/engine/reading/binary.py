"""Whole files of bytes that may be anything."""

from pathlib import Path

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

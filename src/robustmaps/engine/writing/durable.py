"""What a file says is done must be on the disk before it says so."""

import os
from pathlib import Path


def sync(path: str | Path) -> None:
    """Wait until the contents of a file that was written and closed are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: str | Path) -> None:
    """Wait until the names in a folder are on the disk: files that were created, renamed or removed there."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows, which has no such call
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

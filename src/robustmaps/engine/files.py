"""Files that are written whole or not at all, and their hashes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from robustmaps.engine.checked import sealed
from robustmaps.engine.errors import InputError


@contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write to a temporary file that replaces ``path`` if the block succeeds.

    Readers see the old file or the new one, never a partial one, even after a crash or power cut.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give the result the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
        sync_folder(target.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path, "w") as file:
        file.write(text)


def write_json(path: str | Path, value: object) -> None:
    """Write an indented JSON file atomically; NaN and infinity are refused, since JSON has neither.

    Keys and values get a checksum, which `robustmaps.engine.checked.read_json` verifies.
    """
    values = sealed(value) if isinstance(value, Mapping) else value
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def short_hash(value: object) -> str:
    """Eight hexadecimal digits of a hash of plain values, for unique names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free(*paths: Path) -> None:
    """Refuse to overwrite files; called before the work that would write them.

    Raises:
        InputError: one of the paths exists.
    """
    for path in paths:
        if path.exists():
            raise InputError(f"{path} already exists; choose another path or remove it")

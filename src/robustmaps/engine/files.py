"""Files that are written whole or not at all, and their hashes."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from robustmaps.engine.checked import sealed
from robustmaps.engine.errors import InputError
from robustmaps.engine.writing.durable import sync_folder
from robustmaps.engine.writing.temporaries import full_disk_named, temporary
from robustmaps.engine.writing.writer import is_silent

# More than the largest vision network, and less than a file of holes may have.
_LARGEST_HASHED_BYTES = 1 << 36


@contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write to a temporary file that replaces ``path`` if the block succeeds.

    Readers see the old file or the new one, never a partial one, even after a crash or power cut.

    Raises:
        DiskFull: there is no space left.
    """
    target = Path(path)
    if is_silent(target):
        with open(os.devnull, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        return
    with temporary(target) as made:
        with open(made, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, target)
        sync_folder(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path, "w") as file:
        file.write(text)


def write_json(path: str | Path, value: object) -> None:
    """Write an indented JSON file atomically; NaN and infinity are refused, since JSON has neither.

    Keys and values get a checksum, which `robustmaps.engine.reading.plain.read_json` verifies.
    """
    values = sealed(value) if isinstance(value, Mapping) else value
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


SHOWN_OF_HASH = 12
"""The characters of a hash that a table shows."""


def short_hash(value: object) -> str:
    """Eight hexadecimal digits of a hash of plain values, for unique names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: it is no regular file, or too large for any weights.
    """
    check_regular(path)
    if os.stat(path).st_size > _LARGEST_HASHED_BYTES:
        raise InputError(f"{path}: more than {_LARGEST_HASHED_BYTES:,} bytes; expected a weights file")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file."""
    target = Path(path)
    if is_silent(target):
        return
    with full_disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def keep(path: Path, name: Path) -> None:
    """Keep a file under another name of its folder, which replaces what had it, until ``path`` is written anew."""
    if is_silent(name):
        return
    with temporary(name, folder=True) as made:
        try:
            os.link(path, made / name.name)
        except OSError:  # a file system without links: for a moment there is only the other name
            os.replace(path, name)
        else:
            os.replace(made / name.name, name)
    sync_folder(name.parent)


def rename_file(path: Path, name: Path) -> None:
    """Give a file of ours another name in its folder, which replaces what had it."""
    if is_silent(name):
        return
    os.replace(path, name)
    sync_folder(name.parent)


def remove(path: Path) -> None:
    """Remove a file of ours, if it is there."""
    if not is_silent(path):
        path.unlink(missing_ok=True)


def check_regular(path: str | Path, expected: str = "a file") -> None:
    """Refuse to open what is no regular file: a pipe would wait for a writer, a device has no end.

    Raises:
        InputError: the path is missing or can't be reached, or is a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: can't be read ({why}); expected {expected}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise InputError(f"{path}: {kind}; expected {expected}")


def read_limited(path: str | Path, most_bytes: int, expected: str = "a text file") -> str:
    """The text of a file that may be anything.

    Raises:
        InputError: it is no regular file, is larger, or is not UTF-8.
    """
    check_regular(path, expected)
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected {expected}") from error
    if len(data) > most_bytes:
        raise InputError(f"{path}: more than {most_bytes:,} bytes; expected {expected}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); expected {expected}") from error

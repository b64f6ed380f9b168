"""Checksums of what is written, verified when it is read.

CRC-32, since it guards against accidents: damage, truncation, an edit by hand. It runs at about 3 GB/s, nine times as
fast as SHA-256 (`benchmarks/checksums.py`), and misses one change in four thousand million.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from robustmaps.engine.errors import InputError

CHECKSUM = "checksum"
"""The key of a checksum."""
_KIND = "crc32:"


class Damaged(InputError):  # noqa: N818 - named after what happened
    """A file does not have the contents that were written."""


def checksum(*parts: Any) -> str:
    """The checksum of bytes, in any number of parts; text counts as UTF-8.

    >>> checksum(b"12345", "6789")
    'crc32:cbf43926'
    """
    value = 0
    for part in parts:
        value = zlib.crc32(part.encode() if isinstance(part, str) else part, value)
    return f"{_KIND}{value:08x}"


def compare_checksums(where: object, found: str, written: object, mend: str) -> None:
    """Refuse contents whose checksum is not the one that was written with them.

    Args:
        where: the file.
        found: the checksum of the contents as they are.
        written: the checksum as written.
        mend: what to do about damage.

    Raises:
        Damaged: they differ.
    """
    if found != written:
        raise Damaged(f"{where}: damaged or edited: its contents have {found}, but were written with {written}; {mend}")


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their checksum as the last one; plain values with which `json` can deal."""
    return {**values, CHECKSUM: checksum(_canonical(values))}


def unsealed(values: Any, where: object, mend: str = "restore it from a copy") -> dict[str, Any]:
    """The values that were sealed, without their checksum; those of earlier versions, which have none, as they are.

    Args:
        values: as read from JSON.
        where: the file, for the message.
        mend: what to do about damage.

    Raises:
        Damaged: the values are not those that were sealed.
        InputError: not keys and values.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected keys and values, not a {type(values).__name__}")
    rest = dict(values)
    written = take_checksum(rest)
    if written is not None:
        compare_checksums(where, checksum(_canonical(rest)), written, mend)
    return rest


def take_checksum(values: dict[str, Any]) -> str | None:
    """Take the checksum out of the values; None if there is none.

    It is found by its key or by its value, so that damage to either does not make it look like a file of an earlier
    version, which has none.
    """
    for key in reversed(values):
        value = values[key]
        if key == CHECKSUM or (isinstance(value, str) and value.startswith(_KIND)):
            return str(values.pop(key))
    return None


def _canonical(values: Mapping[str, Any]) -> str:
    """The same text before writing and after reading, however the file is indented."""
    return json.dumps(values, separators=(",", ":"))

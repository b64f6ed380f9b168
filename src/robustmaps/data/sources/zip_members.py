"""The members of a zip archive."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from robustmaps.data.sources.members import Member
from robustmaps.engine.errors import InputError

_ENCRYPTED = 0x1
_BOMB_BYTES, _BOMB_RATIO = 1 << 24, 250
"""A member of more bytes that shrank to less than one in this many is no photograph."""


def zip_members(path: Path) -> Iterator[Member]:
    """The members in order; nothing is unpacked to disk.

    Raises:
        InputError: the archive is encrypted or a bomb.
        zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError: it is damaged, or packed by a method
            that Python does not have; also from reading a member.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & _ENCRYPTED:
                raise InputError(f"{path}: member {member.filename!r} is encrypted; pack it without a password")
            if member.file_size > max(_BOMB_BYTES, _BOMB_RATIO * member.compress_size):
                raise InputError(
                    f"{path}: member {member.filename!r} unpacks from {member.compress_size:,} to "
                    f"{member.file_size:,} bytes; expected images"
                )
            kind = stat.S_IFMT(member.external_attr >> 16)
            special = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
            if member.is_dir() or special:
                yield Member(member.filename, 0, special, None)
                continue
            with archive.open(member) as file:
                yield Member(member.filename, member.file_size, False, file.read)

"""The members of a tar archive, read as a stream."""

import bz2
import gzip
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from robustmaps.data.sources.members import Member
from robustmaps.engine.errors import InputError

_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BLOCK = 512
_CHUNK = 1 << 20
_LONGEST_NAME = 1 << 16


class _Header(tarfile.TarInfo):
    """A member's header; one that announces a long name is read whole, so its length is limited."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        names = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if header.type in (*names, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and header.size > _LONGEST_NAME:
            raise tarfile.ReadError(f"a name of {header.size:,} bytes")
        return header


def tar_members(path: Path) -> Iterator[Member]:
    """The members in order.

    Raises:
        InputError: the archive is cut off.
        tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError: it is damaged; also from reading a member.
    """
    with _open(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header it has seen
            plain = member.isfile() and not member.issparse()
            file = archive.extractfile(member) if plain else None
            yield Member(member.name, member.size, not (plain or member.isdir()), file.read if file else None)
        # The end of the compressed stream holds its checksum, which only reading on to the end compares.
        while stream.read(_CHUNK):
            pass
    _check_end(path)


def _compression(path: Path) -> bytes | None:
    with path.open("rb") as file:
        start = file.read(max(map(len, _OPENERS)))
    return next((magic for magic in _OPENERS if start.startswith(magic)), None)


def _open(path: Path) -> IO[bytes]:
    magic = _compression(path)
    stream: IO[bytes] = _OPENERS[magic](path) if magic else path.open("rb")
    return stream


def _check_end(path: Path) -> None:
    """A tar file ends with zeros; one cut off between two members lacks them and looks whole otherwise."""
    if _compression(path):
        return
    with path.open("rb") as file:
        file.seek(-min(_BLOCK, path.stat().st_size), os.SEEK_END)
        if any(file.read()):
            raise InputError(f"{path}: the archive is cut off; copy or download it again")

"""A tar archive of class folders, read as a stream."""

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from robustmaps.data.decode import Encoded, decode_blocks
from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.sources.tree import Tree, is_hidden, is_image
from robustmaps.engine.errors import InputError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BLOCK = 512
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """Images in ``CLASS/``, or in ``train/CLASS/`` and ``test/CLASS/``, in a tar file of any compression.

    Nothing is unpacked: the bytes of each image go from the stream to the decoder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        return self.path.name[: -len(suffix_of(self.path) or "") or None]

    def identity(self) -> str:
        """The path, the size and the modification time."""
        status = self.path.stat()
        return f"archive {self.path} {status.st_size} {status.st_mtime_ns}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Decode while reading; the number of images is only known at the end."""
        return Contents(str(self.path), decode_blocks(self._images(), image_size, progress))

    def _images(self) -> Iterator[Encoded]:
        tree = Tree(str(self.path))
        with self._damage_reported(), self._open() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header it has seen
                parts = self._safe_parts(member)
                if any(map(is_hidden, parts)):
                    continue
                if member.isdir():
                    if parts:
                        tree.add_folder("/".join(parts))
                elif is_image(parts[-1]):
                    split, label = tree.place("/".join(parts[:-1]))
                    file = archive.extractfile(member)
                    data = file.read() if file else b""
                    yield Encoded(f"{self.path}: {member.name}", data, split, label)
            # The end of the compressed stream holds its checksum, which only reading on to the end compares.
            while stream.read(_CHUNK):
                pass
        self._check_end()
        tree.finish()

    def _safe_parts(self, member: tarfile.TarInfo) -> list[str]:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.name.startswith("/") or ".." in parts:
            raise InputError(f"{self.path}: unsafe member {member.name!r} points outside the archive; pack it anew")
        if not (member.isfile() or member.isdir()):
            raise InputError(
                f"{self.path}: unsafe member {member.name!r} is a link or a device; "
                "pack plain files (tar --dereference --hard-dereference)"
            )
        return parts

    def _compression(self) -> bytes | None:
        with self.path.open("rb") as file:
            start = file.read(max(map(len, _OPENERS)))
        return next((magic for magic in _OPENERS if start.startswith(magic)), None)

    def _open(self) -> IO[bytes]:
        magic = self._compression()
        stream: IO[bytes] = _OPENERS[magic](self.path) if magic else self.path.open("rb")
        return stream

    def _check_end(self) -> None:
        """A tar file ends with zeros; one cut off between two members lacks them and looks whole otherwise."""
        if self._compression():
            return
        with self.path.open("rb") as file:
            file.seek(-min(_BLOCK, self.path.stat().st_size), os.SEEK_END)
            if any(file.read()):
                raise InputError(f"{self.path}: the archive is cut off; copy or download it again")

    @contextmanager
    def _damage_reported(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
            raise InputError(f"{self.path}: damaged or cut off ({error}); copy or download it again") from error


def suffix_of(path: Path) -> str | None:
    """The ending of the name that says that a file is a tar archive."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


ROW = SourceRow(
    name="archive",
    form="ARCHIVE.tar[.gz|.xz]",
    summary="a FOLDER of images by class, packed",
    at=lambda path: Archive(path) if path.is_file() and suffix_of(path) else None,
)

"""An archive of class folders: tar, read as a stream, or zip."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmaps.data.decode import DECODING, Encoded, decode_blocks
from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.content import HEAD_BYTES
from robustmaps.data.sources.members import MOST_BYTES, Member, safe_parts
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.sources.tar_members import tar_members
from robustmaps.data.sources.tree import Tree, is_hidden, leave_out
from robustmaps.data.sources.zip_members import zip_members
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(EOFError, OSError, NotImplementedError),
)
_READERS: dict[str, Callable[[Path], Iterator[Member]]] = {**dict.fromkeys(_TAR, tar_members), ".zip": zip_members}


@dataclass(frozen=True)
class Archive:
    """Images in ``CLASS/``, or in ``train/CLASS/`` and ``test/CLASS/``, in a tar file of any compression, or a zip.

    Nothing is unpacked: the bytes of each image go from the archive to the decoder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        return self.path.name[: -len(suffix_of(self.path) or "") or None]

    def identity(self) -> str:
        """The path, the size and the modification time."""
        status = self.path.stat()
        return f"archive {self.path} {status.st_size} {status.st_mtime_ns} {DECODING}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Decode while reading; the number of images is only known at the end."""
        tally = Tally()
        blocks = decode_blocks(self._images(tally), image_size, progress, tally)
        return Contents(str(self.path), blocks, tally=tally)

    def _images(self, tally: Tally) -> Iterator[Encoded]:
        tree = Tree(str(self.path), tally)
        try:
            for member in _READERS[suffix_of(self.path) or ""](self.path):
                if (image := self._image(member, tree, tally)) is not None:
                    yield image
        except _DAMAGE as error:
            raise InputError(f"{self.path}: damaged or cut off ({error}); copy or download it again") from error
        tree.finish()

    def _image(self, member: Member, tree: Tree, tally: Tally) -> Encoded | None:
        parts = safe_parts(str(self.path), member)
        if any(map(is_hidden, parts[:-1])):
            return None
        if member.read is None:
            if parts and not is_hidden(parts[-1]):
                tree.add_folder("/".join(parts))
            return None
        # Read once, since a stream does not go back.
        head = member.read(HEAD_BYTES)
        if leave_out(parts[-1], "/".join(parts), lambda: head, tally):
            return None
        if member.size > MOST_BYTES:
            raise InputError(
                f"{self.path}: {member.name}: {member.size:,} bytes unpacked; "
                f"expected images of at most {MOST_BYTES >> 20} MiB"
            )
        split, label = tree.place("/".join(parts[:-1]))
        return Encoded(f"{self.path}: {member.name}", head + member.read(MOST_BYTES), split, label)


def suffix_of(path: Path) -> str | None:
    """The ending of the name that says that a file is an archive."""
    return next((suffix for suffix in _READERS if path.name.lower().endswith(suffix)), None)


ROW = SourceRow(
    name="archive",
    form="ARCHIVE.tar[.gz|.xz]|.zip",
    summary="a FOLDER of images by class, packed",
    at=lambda path: Archive(path) if path.is_file() and suffix_of(path) else None,
)

"""A folder of class folders."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmaps.data.decode import DECODING, Encoded, decode_blocks
from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.content import HEAD_BYTES, has_image_suffix
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.sources.tree import Tree, is_hidden, leave_out
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError


@dataclass(frozen=True)
class Folder:
    """Images in ``CLASS/``, or in ``train/CLASS/`` and ``test/CLASS/``; folders may be links.

    Images are recognised by the endings of their names, other files by their first bytes.
    """

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def identity(self) -> str:
        """The path, and a hash of all names, sizes and modification times.

        Raises:
            InputError: an image is a link to nothing, or can't be read.
        """
        digest = hashlib.sha256()
        for folder, files in self._walk(Tally()):
            digest.update(f"{folder}/\n".encode(errors="surrogateescape"))
            for name in filter(lambda name: not is_hidden(name), files):
                status = _status(self.path / folder / name)
                entry = f"{name} {(status.st_size, status.st_mtime_ns) if status else None}\n"
                digest.update(entry.encode(errors="surrogateescape"))
        return f"folder {self.path} {digest.hexdigest()} {DECODING}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Check the layout of the whole tree, then decode."""
        tally = Tally()
        tree = Tree(str(self.path), tally)
        images = []
        for folder, files in self._walk(tally):
            if folder:
                tree.add_folder(folder)
            for name in files:
                path = self.path / folder / name
                if self._left_out(path, name, tally):
                    continue
                split, label = tree.place(folder)
                images.append(Encoded(str(path), path, split, label))
        tree.finish()
        return Contents(str(self.path), decode_blocks(images, image_size, progress, tally), tally=tally)

    def _left_out(self, path: Path, name: str, tally: Tally) -> bool:
        where = path.relative_to(self.path).as_posix()
        if is_hidden(name):
            return leave_out(name, where, bytes, tally)
        status = _status(path)
        # Opening a pipe would wait for somebody who writes to it.
        if status is None or not stat.S_ISREG(status.st_mode):
            tally.count("left out, not a regular file", where)
            return True
        return leave_out(name, where, lambda: _head(path), tally)

    def _walk(self, tally: Tally) -> Iterator[tuple[str, list[str]]]:
        """Every folder, as a path below the root with ``/`` between its parts, with its files; all sorted."""
        over = tuple((status.st_dev, status.st_ino) for status in map(os.stat, self.path.parents))
        above = {str(self.path): over}
        for path, folders, files in os.walk(self.path, followlinks=True):
            status = os.stat(path)
            own = (status.st_dev, status.st_ino)
            folder = Path(path).relative_to(self.path).as_posix()
            if own in above[path]:
                tally.count("left out, a link to a folder above it", folder)
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            above.update({os.path.join(path, name): (*above[path], own) for name in folders})
            yield "" if folder == "." else folder, sorted(files)


def _status(path: Path) -> os.stat_result | None:
    """Its status; None for what can't be read and is not an image by its name."""
    try:
        return os.stat(path)
    except OSError as error:
        if not has_image_suffix(path.name):
            return None
        raise InputError(f"{path}: can't be read ({error.strerror}); mend or remove it") from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); mend or remove it") from error


ROW = SourceRow(
    name="folder",
    form="FOLDER",
    summary="folders of images by class, below train/ and test/",
    at=lambda path: Folder(path) if path.is_dir() else None,
    order=9,  # any folder that is nothing else
)

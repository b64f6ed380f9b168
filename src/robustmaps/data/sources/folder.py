"""A folder of class folders."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmaps.data.decode import Encoded, decode_blocks
from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.registry import SourceRow
from robustmaps.data.sources.tree import Tree, is_hidden, is_image
from robustmaps.engine.errors import InputError


@dataclass(frozen=True)
class Folder:
    """Images in ``CLASS/``, or in ``train/CLASS/`` and ``test/CLASS/``; folders may be links."""

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
        for folder, files in self._walk():
            digest.update(f"{folder}/\n".encode(errors="surrogateescape"))
            for name in files:
                try:
                    status = os.stat(f"{self.path}/{folder}/{name}")
                except OSError as error:
                    raise InputError(
                        f"{self.path / folder / name}: can't be read ({error.strerror}); mend or remove it"
                    ) from error
                entry = f"{name} {status.st_size} {status.st_mtime_ns}\n"
                digest.update(entry.encode(errors="surrogateescape"))
        return f"folder {self.path} {digest.hexdigest()}"

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Check the layout of the whole tree, then decode."""
        tree = Tree(str(self.path))
        images = []
        for folder, files in self._walk():
            if folder:
                tree.add_folder(folder)
            for name in files:
                split, label = tree.place(folder)
                path = self.path / folder / name
                images.append(Encoded(str(path), path, split, label))
        tree.finish()
        return Contents(str(self.path), decode_blocks(images, image_size, progress))

    def _walk(self) -> Iterator[tuple[str, list[str]]]:
        """Every folder, as a path below the root with ``/`` between its parts, with its image files; all sorted."""
        for path, folders, files in os.walk(self.path, followlinks=True):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            folder = Path(path).relative_to(self.path).as_posix()
            yield "" if folder == "." else folder, sorted(filter(is_image, files))


ROW = SourceRow(
    name="folder",
    form="FOLDER",
    summary="folders of images by class, below train/ and test/",
    at=lambda path: Folder(path) if path.is_dir() else None,
    order=9,  # any folder that is nothing else
)

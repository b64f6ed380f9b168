"""The files of a folder that changed, sent from a machine whose disk others can't see."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, remove
from robustmaps.engine.writing.outputs import LOCK
from robustmaps.engine.writing.temporaries import is_leftover

Stamp = tuple[int, int, int]
"""What changes with a file: time, size and inode."""


@dataclass(frozen=True)
class Changes:
    """What changed in a folder.

    Attributes:
        files: new contents by path in the folder, in the order in which they were written.
        names: all files that are there now; others that were sent before have gone.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    def then(self, later: "Changes") -> "Changes":
        """These changes and later ones as one."""
        files = {name: data for name, data in self.files.items() if name not in later.files and name in later.names}
        return Changes({**files, **later.files}, later.names)

    def apply(self, folder: Path, before: Collection[str]) -> None:
        """Make a folder like the one that they are from.

        Args:
            folder: the folder.
            before: files that are known from there; if they have gone, they are removed.

        Raises:
            InputError: a path leads out of the folder.
        """
        for name in (*self.files, *before):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"{name}: expected a path inside {folder}")
        for name, data in self.files.items():
            with atomic(folder / name) as file:
                file.write(data)
        for name in set(before) - self.names:
            remove(folder / name)


class Watched:
    """A folder whose changes are asked for now and then.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent: dict[str, Stamp] = {}

    def changes(self) -> Changes | None:
        """What changed since it was last asked; None if nothing did."""
        present = self._present()
        changed = sorted((stamp, name) for name, stamp in present.items() if self._sent.get(name) != stamp)
        if not changed and present.keys() == self._sent.keys():
            return None
        self._sent = present
        return Changes({name: (self._folder / name).read_bytes() for _, name in changed}, frozenset(present))

    def _present(self) -> dict[str, Stamp]:
        found = {}
        for path in self._folder.rglob("*"):
            parts = path.relative_to(self._folder)
            if path.name == LOCK or not path.is_file() or any(is_leftover(Path(part)) for part in parts.parts):
                continue
            status = os.stat(path)
            found[parts.as_posix()] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found

"""Which split and class an image belongs to, from the folders it lies in."""

from collections.abc import Callable

from robustmaps.data.source import SPLIT_NAMES, UNSPLIT
from robustmaps.data.sources.content import has_image_suffix, why_left_out
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError

_HIDDEN = (".", "__MACOSX")
_EXPECTED = "expected train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"


def is_hidden(name: str) -> bool:
    """Whether a file or folder is what systems leave behind (``.DS_Store``, ``__MACOSX``) rather than data."""
    return name.startswith(_HIDDEN)


def leave_out(name: str, where: str, head: Callable[[], bytes], tally: Tally) -> bool:
    """Whether a file is not to be decoded; what is not system debris is counted.

    Args:
        name: its name.
        where: its path, for people.
        head: reads its first bytes; only called where the name decides nothing.
        tally: counts it.
    """
    if is_hidden(name):
        if has_image_suffix(name) and not name.startswith("._"):
            tally.count("left out, hidden by a dot in front of the name", where)
        return True
    if has_image_suffix(name):
        return False
    reason = why_left_out(head())
    if reason is not None:
        tally.count(reason, where)
    return reason is not None


class Tree:
    """The folders of a source, each told once, in any order, as a path below the root with ``/`` between its parts.

    The layout is ``[TOP/][SPLIT/]CLASS/IMAGE``, with at most one folder on top.
    """

    def __init__(self, where: str, tally: Tally) -> None:
        self._where = where
        self._tally = tally
        self._folders: set[str] = set()
        self._placed: dict[str, tuple[str, str]] = {}
        self._top: str | None = None

    def add_folder(self, folder: str) -> None:
        """Note a folder, which must turn out to have an image somewhere below it."""
        self._folders.add(folder)

    def place(self, folder: str) -> tuple[str, str]:
        """The split and the class name of the images that lie directly in a folder.

        Raises:
            InputError: the path doesn't fit the layout, or not that of the folders before it.
        """
        if folder not in self._placed:
            self._placed[folder] = self._place(folder)
        return self._placed[folder]

    def finish(self) -> None:
        """Check what can only be known when every image has been seen.

        Raises:
            InputError: a folder has no image, or the images lie directly in the folders of the splits.
        """
        labels = [label for split, label in self._placed.values() if split == UNSPLIT]
        if labels and all(label.lower() in SPLIT_NAMES for label in labels):
            raise InputError(f"{self._where}: the images in {labels[0]} lie in no class folder; {_EXPECTED}")
        filled = set(self._placed)
        for folder in self._placed:
            parts = folder.split("/")
            filled.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        empty = sorted(self._folders - filled)
        if empty:
            seen = "".join(f"; {note}" for note in self._tally.notes())
            raise InputError(f"{self._where}: class folder {empty[0]} has no image; fill it or remove it{seen}")
        self._check_classes()

    def _check_classes(self) -> None:
        """What the store would say after decoding everything, which may take an hour."""
        trained = {label for split, label in self._placed.values() if split == "train"}
        classes = {label for split, label in self._placed.values() if split != UNSPLIT}
        if trained and classes != trained:
            missing = sorted(classes - trained)
            raise InputError(
                f"{self._where}: class {missing[0]!r} has no training image "
                f"({len(missing)} of {len(classes)} classes have none); add images or remove the class"
            )

    def _place(self, folder: str) -> tuple[str, str]:
        *above, label = folder.split("/")
        if not label:
            raise InputError(f"{self._where}: an image lies in no class folder; {_EXPECTED}")
        split = SPLIT_NAMES.get(above[-1].lower(), UNSPLIT) if above else UNSPLIT
        top = "/".join(above if split == UNSPLIT else above[:-1])
        mixed = any((split == UNSPLIT) != (other == UNSPLIT) for other, _ in self._placed.values())
        if mixed or "/" in top or top != (self._top if self._top is not None else top):
            raise InputError(f"{self._where}: {folder} does not fit the other folders; {_EXPECTED}")
        self._top = top
        return split, label

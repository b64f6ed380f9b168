"""What a source of images hands to the store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: Called with the number of images read so far and, where it is known, of all.
Progress = Callable[[int, int | None], None]

#: How the splits are called in the wild. A labelled validation split without a test split serves as the test split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

#: The split of the images of a source that comes without splits.
UNSPLIT = "all"


@dataclass(frozen=True)
class Block:
    """Some images of one split, in the order of the source.

    Attributes:
        split: ``train``, ``validation``, ``test`` or :data:`UNSPLIT`.
        images: uint8, (n, C, H, W) with C of 1 or 3; H and W are the same for all blocks of a source.
        labels: n class names.
    """

    split: str
    images: NDArray[np.uint8]
    labels: Sequence[str]


@dataclass(frozen=True)
class Contents:
    """All that a source holds.

    Attributes:
        where: the file or folder, for error messages.
        blocks: read once, block by block, so that a source need not fit in memory.
        classes: the class names in the order of the labels; without them, the names found, sorted.
    """

    where: str
    blocks: Iterator[Block]
    classes: tuple[str, ...] | None = None


class Source(Protocol):
    """A place that labelled images come from."""

    @property
    def name(self) -> str:
        """A short name, fit for a file name."""

    def identity(self) -> str | None:
        """What changes whenever the content may have changed, at a fraction of the cost of reading it.

        None for a source that is read faster than a cache could be; it isn't cached.
        """

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Read everything; with ``image_size``, the shorter side is resized to it and the centre cropped to a square.

        Raises:
            InputError: here or while the blocks are read; it names the file and says what is wrong with it.
        """

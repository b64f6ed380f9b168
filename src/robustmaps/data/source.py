"""The interface between sources of images and the store."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.tally import Tally

#: Called with the number of images read so far and the total, if known.
Progress = Callable[[int, int | None], None]

#: Common names of splits. Without a test split, a labelled validation split serves as the test split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

#: The split of all images of a source without splits.
UNSPLIT = "all"


@dataclass(frozen=True)
class Block:
    """Some images of one split, in the order of the source.

    Attributes:
        split: ``train``, ``validation``, ``test`` or :data:`UNSPLIT`.
        images: uint8, (n, C, H, W), 1 or 3 channels; H and W are the same for all blocks of a source.
        labels: n class names.
    """

    split: str
    images: NDArray[np.uint8]
    labels: Sequence[str]


@dataclass(frozen=True)
class Contents:
    """The images of a source.

    Attributes:
        where: the file or folder, for error messages.
        blocks: read once, block by block, so that a source need not fit in memory.
        classes: the class names in the order of the labels; None for the names found, sorted.
        tally: counts what was left out or changed; complete when all blocks have been read.
        numbered: without ``classes``, names that are all numbers are the labels, so that classes are 0 to the largest.
    """

    where: str
    blocks: Iterator[Block]
    classes: tuple[str, ...] | None = None
    tally: Tally = field(default_factory=Tally)
    numbered: bool = False


class Source(Protocol):
    """A place that labelled images come from."""

    @property
    def name(self) -> str:
        """A short name, safe in file names."""

    def identity(self) -> str | None:
        """A cheap text that changes whenever the content may have changed; None for a source too fast to be cached."""

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Read everything; with ``image_size``, resize the shorter side to it and crop the centre to a square.

        Raises:
            InputError: here or while the blocks are read: a file is unusable; the message names it and the reason.
        """

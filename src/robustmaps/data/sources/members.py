"""What an archive contains, whatever its format."""

from collections.abc import Callable
from dataclasses import dataclass

MOST_BYTES = 1 << 28
"""The size of the largest image file; a small archive may unpack to any number of bytes."""


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive.

    Attributes:
        name: its path, as the archive has it.
        size: its size in bytes, as the archive has it.
        special: whether it is a link, a device or the like.
        read: reads at most that many further bytes of a file, before the next member is asked for; None for a folder.
    """

    name: str
    size: int
    special: bool
    read: Callable[[int], bytes] | None

"""What an archive contains, whatever its format."""

from collections.abc import Callable
from dataclasses import dataclass

from robustmaps.engine.errors import InputError

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


def safe_parts(where: str, member: Member) -> list[str]:
    """The parts of a member's path; empty for the top folder itself.

    Raises:
        InputError: it points outside the archive, or is a link or a device.
    """
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    windows = "\\" in member.name or member.name[1:2] == ":"
    if member.name.startswith("/") or ".." in parts or windows or (member.read is not None and not parts):
        raise InputError(f"{where}: unsafe member {member.name!r} points outside the archive; pack it anew")
    if member.special:
        raise InputError(
            f"{where}: unsafe member {member.name!r} is a link or a device; "
            "pack plain files (tar --dereference --hard-dereference, or zip without --symlinks)"
        )
    return parts

"""Which rank this process is, without PyTorch."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Place:
    """The place of this process among those of its run.

    Attributes:
        rank: its number, from 0.
        size: the number of processes.
        local_size: the number of them on this machine.
        here: the place of this process, as everybody in it is in the same run; set by `joining.joined`. Programs that
            use torch.distributed for themselves are not in a run of ours.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    here: ClassVar["Place"]


Place.here = Place()


def rank() -> int:
    """The number of this process in its run, from 0."""
    return Place.here.rank


def size() -> int:
    """The number of processes of the run."""
    return Place.here.size


def is_main() -> bool:
    """Whether this process writes the files and talks to the user."""
    return Place.here.rank == 0

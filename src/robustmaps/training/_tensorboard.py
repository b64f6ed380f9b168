"""Optional TensorBoard events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustmaps.engine.errors import InputError


class NoEvents:
    """Writes nothing."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Ignore an epoch's record."""


class TensorBoardEvents:
    """Writes every number of an epoch's record as a scalar.

    Args:
        folder: the folder of the event files.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("tensorboard=True: needs TensorBoard; pip install 'robustmaps[tensorboard]'") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, record: Mapping[str, Any]) -> None:
        """Write an epoch's record."""
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, record["epoch"])

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


@contextmanager
def open_events(folder: Path | None) -> Iterator[NoEvents | TensorBoardEvents]:
    """Events in ``folder``, or none."""
    if folder is None:
        yield NoEvents()
        return
    writer = TensorBoardEvents(folder)
    try:
        yield writer
    finally:
        writer.close()

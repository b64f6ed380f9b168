"""TensorBoard events in the run folder."""

import sys
from collections.abc import Mapping
from pathlib import Path

from robustmaps.training.loggers._registry import LoggedRun, LoggerRow, OpenedLog

_FOLDER = "tensorboard"


class TensorBoardLogger:
    """Writes every figure as a scalar.

    Args:
        folder: the folder of the event files.
        purge: whether what an earlier process wrote there is replaced by what follows.
    """

    def __init__(self, folder: Path, *, purge: bool = False) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # The first epoch, since all of them are written again: an event of a killed process may be half on disk.
        self._writer = SummaryWriter(str(folder), purge_step=1 if purge else None)

    def write(self, record: Mapping[str, float]) -> None:
        """Write an epoch's figures to disk."""
        for name, value in record.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(record["epoch"]))
        self._writer.flush()

    def summarise(self, record: Mapping[str, float]) -> None:
        """Write final figures, at the epoch of the weights."""
        self.write(record)

    def close(self, *, finished: bool) -> None:  # noqa: ARG002 - event files say nothing about it
        """Close the file."""
        self._writer.close()


def _open(run: LoggedRun) -> OpenedLog:
    folder = run.folder / _FOLDER
    if run.finished and folder.exists():
        return OpenedLog(TensorBoardLogger(folder), _FOLDER, sys.maxsize)
    return OpenedLog(TensorBoardLogger(folder, purge=folder.exists()), _FOLDER)


ROW = LoggerRow(
    name="tensorboard",
    summary="event files in the run folder",
    needs="torch.utils.tensorboard",
    install="pip install 'robustmaps[tensorboard]'",
    open=_open,
)

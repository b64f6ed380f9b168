"""Weights & Biases; its own environment variables choose project, mode and server, such as WANDB_MODE=offline."""

import os
import secrets
import sys
from collections.abc import Mapping
from typing import Any

from robustmaps.training.loggers._registry import LoggedRun, LoggerRow, OpenedLog


class WandbLogger:
    """Writes every figure at the step of its epoch.

    Args:
        run: a run that ``wandb.init`` returned.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, record: Mapping[str, float]) -> None:
        """Write an epoch's figures."""
        self._run.log(dict(record), step=int(record["epoch"]))

    def summarise(self, record: Mapping[str, float]) -> None:
        """Write final figures into the run's summary."""
        self._run.summary.update({name: value for name, value in record.items() if name != "epoch"})

    def close(self, *, finished: bool) -> None:
        """Finish the run; one that was stopped counts as failed until it is resumed."""
        self._run.finish(exit_code=0 if finished else 1)


def _open(run: LoggedRun) -> OpenedLog:
    import wandb

    identity = run.identity or secrets.token_hex(4)
    made = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "robustmaps"),
        id=identity,
        name=run.name,
        resume="allow",
        reinit="create_new",  # the runs of a study that share a process are runs of their own
        dir=os.environ.get("WANDB_DIR", str(run.folder)),
        config=dict(run.settings),
        settings=wandb.Settings(console="off"),
    )
    # The next step, which a server knows; without one, all epochs are written again, each at its own step.
    known = run.finished and run.identity is not None
    return OpenedLog(WandbLogger(made), identity, sys.maxsize if known else max(0, int(made.step) - 1))


ROW = LoggerRow(
    name="wandb",
    summary="a run at Weights & Biases",
    needs="wandb",
    install="pip install 'robustmaps[wandb]'",
    open=_open,
)

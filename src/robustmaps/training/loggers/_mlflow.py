"""MLflow; its own environment variables choose server and experiment, such as MLFLOW_TRACKING_URI."""

import os
import time
from collections.abc import Mapping
from typing import Any

from robustmaps.training.loggers._registry import LoggedRun, LoggerRow, OpenedLog

_LONGEST = 500
"""Characters of a parameter that every store takes."""


class MlflowLogger:
    """Writes every figure as a metric at the step of its epoch, through a client of its own.

    Args:
        client: an ``MlflowClient``.
        identity: the ID of the run.
    """

    def __init__(self, client: Any, identity: str) -> None:
        self._client, self._identity = client, identity

    def write(self, record: Mapping[str, float], step: int | None = None) -> None:
        """Write an epoch's figures; at its own step, if none is given."""
        from mlflow.entities import Metric

        now, step = int(1000 * time.time()), int(record["epoch"]) if step is None else step
        metrics = [Metric(name, float(value), now, step) for name, value in record.items()]
        self._client.log_batch(self._identity, metrics=metrics)

    def summarise(self, record: Mapping[str, float]) -> None:
        """Write final figures as metrics, at the epoch of the weights."""
        self.write({name: value for name, value in record.items() if name != "epoch"}, int(record["epoch"]))

    def close(self, *, finished: bool) -> None:
        """End the run; one that was stopped may be resumed."""
        self._client.set_terminated(self._identity, "FINISHED" if finished else "KILLED")


def _open(run: LoggedRun) -> OpenedLog:
    from mlflow import MlflowClient

    client = MlflowClient()
    if run.identity is not None:
        last = client.get_run(run.identity).data.metrics.get("epoch", 0)
        client.update_run(run.identity, status="RUNNING")
        return OpenedLog(MlflowLogger(client, run.identity), run.identity, int(last))
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "robustmaps")
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    identity = client.create_run(experiment, run_name=run.name).info.run_id
    for key, value in run.settings.items():
        client.log_param(identity, key, value[:_LONGEST])
    return OpenedLog(MlflowLogger(client, identity), identity)


ROW = LoggerRow(
    name="mlflow",
    summary="a run of an MLflow experiment",
    needs="mlflow",
    install="pip install 'robustmaps[mlflow]'",
    open=_open,
)

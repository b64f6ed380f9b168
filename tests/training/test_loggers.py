"""Loggers get every epoch once, go on in the same log, and can neither stop nor change a run."""

import json
import re
import sys
import warnings

import pytest
import torch
from torch import nn

from robustmaps.attacks import PGD
from robustmaps.cli import main
from robustmaps.config import RunConfig
from robustmaps.defenses import AT
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.measured import Measured
from robustmaps.runs import train
from robustmaps.training import TrainOptions, fit
from robustmaps.training.loggers import LoggedRun, LoggerFailed, LoggerRow, OpenedLog, register
from robustmaps.training.loggers import _registry as registry

ATTACK = PGD(eps=0.1, steps=1)


def options(**more):
    return TrainOptions(**{"epochs": 2, "batch_size": 32, "device": "cpu", "precision": "fp32", "lr": 0.05, **more})


@pytest.fixture
def make_net(make_cnn):
    def make(*, dropout=False):
        network = make_cnn(1, 6, 2)
        return nn.Sequential(nn.Dropout(0.2), network) if dropout else network

    return make


@pytest.fixture
def net(make_net):
    return make_net()


class Kept:
    """Keeps what it gets."""

    def __init__(self):
        self.records, self.ends = [], []

    def write(self, record):
        self.records.append(dict(record))

    def close(self, *, finished):
        self.ends.append(finished)

    @property
    def epochs(self):
        return [record["epoch"] for record in self.records]


class Summarising(Kept):
    """Takes final figures, too."""

    def __init__(self):
        super().__init__()
        self.final = []

    def summarise(self, record):
        self.final.append(dict(record))


class Unruly(Kept):
    """Does what it must not, and then fails."""

    def write(self, record):
        torch.manual_seed(7)
        torch.rand(5)
        record.clear()
        super().write(record)
        raise OSError("no connection")


def stopping(kept):
    """Stops a run after the first step of its second epoch; one asks at two steps, in validation twice, and after."""
    asked = iter([False] * 5)
    return {"loggers": [kept], "should_stop": lambda: next(asked, True)}


@pytest.fixture
def rows(monkeypatch):
    """Registers a logger ``kept`` whose logs, by identity, are returned."""
    monkeypatch.setattr(registry._REGISTRY, "_registered", {})
    logs, told = {}, []

    def opened(run: LoggedRun):
        told.append(run)
        identity = run.identity or f"log-{len(logs)}"
        logs.setdefault(identity, Kept())
        return OpenedLog(logs[identity], identity, max(logs[identity].epochs, default=0))

    register(LoggerRow(name="kept", summary="a test", needs="json", install="none", open=opened))
    return logs, told


def test_every_epoch_is_handed_on(net, make_dataset, tmp_path, rows):
    logs, told = rows
    own = Kept()
    result = fit(net, make_dataset(), AT(ATTACK), options(log="kept"), out=tmp_path / "run", loggers=[own])
    assert own.records == [dict(record) for record in result.history]
    assert logs["log-0"].records == own.records
    assert (own.ends, logs["log-0"].ends) == ([True], [True])
    (run,) = told
    assert (run.name, run.folder, run.identity) == ("run", tmp_path / "run", None)
    assert run.settings["batch_size"] == "32"


def test_the_kept_epoch_is_handed_on_at_the_end(net, make_dataset):
    data, own = make_dataset(), Summarising()
    result = fit(net, data, AT(ATTACK), options(), loggers=[own, Kept()])
    (final,) = own.final
    best = result.history[result.best_epoch - 1]
    assert final["epoch"] == final["best_epoch"] == result.best_epoch
    for kind in ("clean", "robust"):
        name = f"best_validation_{kind}_accuracy"
        assert final[name] == best[f"validation_{kind}_accuracy"]
        expected = Measured.wilson(final[name], len(data.validation))
        assert (final[f"{name}_low"], final[f"{name}_high"]) == (expected.low, expected.high)


@pytest.mark.parametrize("log", [None, "kept"])
def test_a_resumed_run_goes_on_in_the_same_log(make_net, make_dataset, tmp_path, rows, log):
    logs, told = rows
    stopped = Kept()
    with pytest.raises(Interrupted):
        fit(make_net(), make_dataset(), AT(ATTACK), options(epochs=3, log=log), out=tmp_path, **stopping(stopped))
    assert stopped.epochs == [1]
    assert stopped.ends == [False]
    own = Kept()
    again = options(epochs=3, log="kept")  # also where it is asked for only now
    result = fit(make_net(), make_dataset(), AT(ATTACK), again, out=tmp_path, resume=True, loggers=[own])
    assert own.epochs == [2, 3]
    (log_of_run,) = logs.values()
    assert log_of_run.records == [dict(record) for record in result.history]
    assert [run.identity for run in told] == ([None] if log is None else [None, "log-0"])


def test_epochs_that_a_kill_left_out_are_written_again(make_net, make_dataset, tmp_path, rows):
    logs, _ = rows
    fit(make_net(), make_dataset(), AT(ATTACK), options(log="kept"), out=tmp_path)
    logs["log-0"].records.pop()
    fit(make_net(), make_dataset(), AT(ATTACK), options(log="kept"), out=tmp_path, resume=True)
    assert logs["log-0"].epochs == [1, 2]


def test_one_that_fails_changes_nothing(make_net, make_dataset, tmp_path, rows):
    kept, bad = Kept(), Unruly()
    plain = fit(make_net(dropout=True), make_dataset(), AT(ATTACK), options())
    with pytest.warns(
        LoggerFailed, match=r"Unruly \(1\) failed .* the run goes on \(OSError: no connection\)"
    ) as found:
        result = fit(make_net(dropout=True), make_dataset(), AT(ATTACK), options(), loggers=[bad, kept])
    assert len(found) == 1
    assert (len(bad.records), bad.ends) == (1, [])
    assert [r["train_loss"] for r in result.history] == [r["train_loss"] for r in plain.history]
    assert kept.records == [dict(record) for record in result.history]


@pytest.mark.parametrize("step", ["open", "close"])
def test_one_that_cannot_be_opened_or_closed(net, make_dataset, tmp_path, rows, step):
    def opened(run):
        if step == "open":
            raise RuntimeError("server")
        bad = Kept()
        bad.close = None
        return OpenedLog(bad, "x")

    register(LoggerRow(name="bad", summary="a test", needs="json", install="none", open=opened))
    with pytest.warns(LoggerFailed, match="the logger bad failed") as found:
        result = fit(net, make_dataset(), AT(ATTACK), options(log="kept,bad"), out=tmp_path)
    assert len(found) == 1
    assert rows[0]["log-0"].epochs == [record["epoch"] for record in result.history]
    known = json.loads((tmp_path / "loggers.json").read_text())
    assert known.get("bad") == (None if step == "open" else "x")


def test_damaged_identities_begin_new_logs(make_net, make_dataset, tmp_path, rows):
    fit(make_net(), make_dataset(), AT(ATTACK), options(epochs=1, log="kept"), out=tmp_path)
    (tmp_path / "loggers.json").write_text("{")
    with pytest.warns(LoggerFailed, match="begin new logs"):
        fit(make_net(), make_dataset(), AT(ATTACK), options(epochs=1, log="kept"), out=tmp_path, resume=True)
    assert rows[0]["log-1"].epochs == [1]


def test_only_rank_0_logs(net, make_dataset, tmp_path, rows, monkeypatch):
    from robustmaps.training.loggers import _open

    monkeypatch.setattr(_open.ranks, "is_main", lambda: False)
    named, device = {"kept": registry._REGISTRY.row("kept")}, torch.device("cpu")
    with _open.opened_loggers(named, [Kept()], tmp_path, {}, list, device) as loggers:
        loggers.write({"epoch": 1})
    assert rows == ({}, [])
    assert not list(tmp_path.iterdir())


def test_names(capsys, tmp_path, net, make_dataset, monkeypatch):
    with pytest.raises(InputError, match=r"logger.*'wandbb'.*did you mean.*wandb"):
        fit(net, make_dataset(), AT(ATTACK), options(log="wandbb"), out=tmp_path / "run")
    with pytest.raises(InputError, match=r"logger.*'wandbb'.*did you mean.*wandb"):
        train(RunConfig(training=options(log="wandbb")), tmp_path)
    with pytest.raises(InputError, match="each logger once"):
        options(log="mlflow,mlflow")
    assert options(log="mlflow, wandb", tensorboard=True).loggers == ("tensorboard", "mlflow", "wandb")
    with pytest.raises(InputError, match="needs a run folder; give out"):
        fit(net, make_dataset(), AT(ATTACK), options(log="tensorboard"))
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"log={name}: needs {name}.*pip install 'robustmaps\[{name}\]'"):
            fit(net, make_dataset(), AT(ATTACK), options(log=name), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    (tmp_path / "run.yaml").write_text("log: wandbb\n")
    (tmp_path / "study.yaml").write_text("fixed: {log: wandbb}\naxes: {seed: [0, 1]}\n")
    for line in (
        ["train", "--log", "wandbb"],
        ["train", "--config", str(tmp_path / "run.yaml")],
        ["sweep", str(tmp_path / "study.yaml"), "--dry-run"],
    ):
        assert main([*line, "--out", str(tmp_path / "runs")]) == 2
        assert "did you mean" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert RunConfig(training=options(log="mlflow")).name == RunConfig(training=options()).name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_every_epoch_once(make_net, make_dataset, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    chosen = options(epochs=3, log="tensorboard")
    with pytest.raises(Interrupted):
        fit(make_net(), make_dataset(), AT(ATTACK), chosen, out=tmp_path, **stopping(Kept()))
    result = fit(make_net(), make_dataset(), AT(ATTACK), chosen, out=tmp_path, resume=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train_loss")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([r["train_loss"] for r in result.history])


def test_mlflow_has_every_epoch_once(make_net, make_dataset, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed (pip install 'robustmaps[mlflow]')")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Interrupted):
            fit(
                make_net(),
                make_dataset(),
                AT(ATTACK),
                options(epochs=3, log="mlflow"),
                out=tmp_path / "run",
                **stopping(Kept()),
            )
        result = fit(
            make_net(), make_dataset(), AT(ATTACK), options(epochs=3, log="mlflow"), out=tmp_path / "run", resume=True
        )
        import mlflow

        client = mlflow.MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("robustmaps").experiment_id])
        losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(r["epoch"], r["train_loss"]) for r in result.history]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["batch_size"] == "32"


def test_wandb_has_every_epoch(make_net, make_dataset, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed (pip install 'robustmaps[wandb]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", LoggerFailed)
        chosen, out = options(epochs=3, log="wandb"), tmp_path / "run"
        with pytest.raises(Interrupted):
            fit(make_net(), make_dataset(), AT(ATTACK), chosen, out=out, **stopping(Kept()))
        result = fit(make_net(), make_dataset(), AT(ATTACK), chosen, out=out, resume=True)
        wandb.teardown()
    identity = json.loads((out / "loggers.json").read_text())["wandb"]
    logs = list((out / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))  # one run, to be joined there
    assert len(logs) == 2
    found = {float(x) for log in logs for x in re.findall(rb"train_loss[^0-9]{1,12}([0-9.e-]+)", log.read_bytes())}
    assert found == {record["train_loss"] for record in result.history}

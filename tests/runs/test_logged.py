"""Final figures of a study reach the loggers of its runs, once; a reproduction logs nothing."""

import sys

import pytest

import robustmaps
from robustmaps.cli import main
from robustmaps.config import AttackConfig, EvaluationConfig, from_mapping
from robustmaps.runs import evaluate_wanted, reproduce, train
from robustmaps.training.loggers import LoggedRun, LoggerFailed, LoggerRow, OpenedLog, register
from robustmaps.training.loggers import _registry as registry

RUN = {"data": "digits", "epochs": 1, "steps": 1, "train_samples": 64, "eps": 0.1, "device": "cpu", "log": "kept"}


class Log:
    """Keeps what it gets, final figures apart."""

    def __init__(self):
        self.epochs, self.final, self.ends = [], [], []

    def write(self, record):
        self.epochs.append(record["epoch"])

    def summarise(self, record):
        self.final.append(dict(record))

    def close(self, *, finished):
        self.ends.append(finished)


@pytest.fixture
def opened(monkeypatch):
    """Registers a logger ``kept``; what is known of the runs that it was opened for, and its logs by identity."""
    monkeypatch.setattr(registry._REGISTRY, "_registered", {})
    told, logs = [], {}

    def make(run: LoggedRun):
        told.append(run)
        identity = run.identity or f"log-{len(logs)}"
        log = logs.setdefault(identity, Log())
        return OpenedLog(log, identity, max(log.epochs, default=0))

    register(LoggerRow(name="kept", summary="a test", needs="json", install="none", open=make))
    return told, logs


@pytest.mark.parametrize("each", [False, True])
def test_evaluations_of_a_study_reach_the_log_and_a_reproduction_does_not(tmp_path, opened, each):
    told, logs = opened
    config = from_mapping(RUN)
    done = train(config, tmp_path / "runs")
    wanted = EvaluationConfig(AttackConfig("fgsm,pgd", eps=(0.05, 0.1), steps=1), samples=20, each=each)
    last = evaluate_wanted(done.folder, wanted, config.training, data=done.data)
    (log,) = logs.values()
    assert (log.epochs, log.ends) == ([1], [True, True])
    assert [(run.identity, run.finished) for run in told] == [(None, False), ("log-0", True)]
    best, final = log.final
    assert best["best_epoch"] == final["epoch"] == 1
    name = "fgsm+pgd-each-linf-0.1-test20" if each else "fgsm+pgd-linf-0.1-test20"
    assert {key.partition("/")[0] for key in final} - {"epoch"} == {name, name.replace("0.1", "0.05")}
    for kind in ("robust", "clean"):
        rate = getattr(last, f"{kind}_accuracy")
        assert final[f"{name}/{kind}_accuracy"] == rate.value
        assert (final[f"{name}/{kind}_accuracy_low"], final[f"{name}/{kind}_accuracy_high"]) == (rate.low, rate.high)
    if not each:
        assert reproduce(done.folder, tmp_path / "again").identical
        assert (len(told), len(log.final)) == (2, 2)


def test_a_logger_that_fails_at_the_end_changes_nothing(tmp_path, opened, monkeypatch):
    config = from_mapping(RUN)
    done = train(config, tmp_path / "runs")
    (log,) = opened[1].values()
    monkeypatch.setattr(log, "summarise", lambda record: record["nothing"])
    wanted = EvaluationConfig(AttackConfig("fgsm"), samples=20)
    with pytest.warns(LoggerFailed, match=r"the logger kept failed .*KeyError"):
        evaluated = evaluate_wanted(done.folder, wanted, config.training, data=done.data)
    assert len(evaluated.verdicts) == 20
    monkeypatch.setattr(registry._REGISTRY, "_registered", {})
    register(LoggerRow(name="kept", summary="a test", needs="not_installed", install="install it", open=lambda _: None))
    with pytest.warns(LoggerFailed, match="needs not_installed.* the final figures are in"):
        evaluate_wanted(done.folder, wanted, config.training, data=done.data)


@pytest.mark.parametrize("log", ["kept", "wandb"])
def test_a_run_opens_where_its_logger_is_not_installed_any_more(tmp_path, opened, monkeypatch, log, capsys):
    if log == "wandb":  # a package of its own, which need not be there even for this test
        monkeypatch.setitem(sys.modules, "wandb", type(sys)("wandb"))
        with pytest.warns(LoggerFailed, match="the logger wandb failed"):
            folder = train(from_mapping({**RUN, "log": log}), tmp_path / "runs").folder
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        folder = train(from_mapping(RUN), tmp_path / "runs").folder
        monkeypatch.setattr(registry._REGISTRY, "_registered", {})
    assert robustmaps.load(folder).budget == ("linf", 0.1)
    for line in (
        ["evaluate", str(folder), "--attack", "fgsm", "--samples", "20", "--device", "cpu"],
        ["report", str(folder), "--out", str(tmp_path / "page")],
        ["runs", str(tmp_path / "runs")],
    ):
        assert main(line) == 0
        assert "logger" not in capsys.readouterr().err

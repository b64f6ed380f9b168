"""Checkpoints are written beside the training, and hold what was there when they were begun."""

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustmaps.data import Dataset
from robustmaps.engine.errors import DiskFull
from robustmaps.training import Interrupted, RunFolder, fit
from robustmaps.training._saving import Saver, on_host
from tests.helpers.same_runs import equal, timeless
from tests.training.test_resume import DEFENSE, OPTIONS, StopAt, assert_same_run, make_model

MakeData = Callable[..., Dataset]
CPU = torch.device("cpu")
EACH_EPOCH = replace(OPTIONS, checkpoint_every_s=60.0)
"""With five steps in each; calls of ``should_stop`` 1 to 5 follow them, 6 and 7 are in the validation, 8 is between."""
LIMIT_S = 60.0


class Writer:
    """Stands before `RunFolder.save_last`: counts what is written at once, and holds it until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = False) -> None:
        self.begun: list[tuple[int, int]] = []
        self.entered, self.released, self.in_time = threading.Event(), threading.Event(), True
        self.threads: set[str] = set()
        self._busy, self.most = 0, 0
        if not held:
            self.released.set()
        inner = RunFolder.save_last

        def save_last(folder: RunFolder, state: dict[str, Any]) -> None:
            self._busy += 1
            self.most = max(self.most, self._busy)
            self.begun.append((state["state"]["epoch"], state["state"]["step"]))
            self.threads.add(threading.current_thread().name)
            self.entered.set()
            self.in_time &= self.released.wait(LIMIT_S)
            inner(folder, state)
            self._busy -= 1

        monkeypatch.setattr(RunFolder, "save_last", save_last)


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is held until three steps after the first epoch are done."""
    writer, calls = Writer(monkeypatch, held=True), 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        if calls == 11:
            assert writer.entered.wait(LIMIT_S)
            assert writer.begun == [(1, 0)]
            assert not RunFolder(tmp_path).begun
            writer.released.set()
        return False

    model = make_model()
    result = fit(model, make_dataset(), DEFENSE, EACH_EPOCH, out=tmp_path, should_stop=count)
    assert writer.in_time
    assert threading.main_thread().name not in writer.threads
    assert len(RunFolder(tmp_path).read_history()) == len(result.history) == 3
    assert equal(model.state_dict(), plain(make_dataset).state_dict())


def plain(make_dataset: MakeData) -> nn.Module:
    """The network of a run without checkpoints."""
    model = make_model()
    fit(model, make_dataset(), DEFENSE, EACH_EPOCH)
    return model


def test_later_steps_do_not_reach_a_checkpoint_that_is_being_written(
    tmp_path: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an error of the training: the checkpoint is written to its end, and the run goes on from it."""
    stopped, broken = RunFolder(tmp_path / "stopped"), RunFolder(tmp_path / "broken")
    with pytest.raises(Interrupted):
        fit(make_model(), make_dataset(), DEFENSE, EACH_EPOCH, out=stopped.path, should_stop=StopAt({8}))
    asked = StopAt({12})

    def broken_off() -> bool:
        if asked():  # after four steps of the second epoch, while that of the first is held
            writer.released.set()
            raise RuntimeError("out of luck")
        return False

    with monkeypatch.context() as patch:
        writer = Writer(patch, held=True)
        with pytest.raises(RuntimeError, match="out of luck"):
            fit(make_model(), make_dataset(), DEFENSE, EACH_EPOCH, out=broken.path, should_stop=broken_off)
    assert writer.in_time
    assert writer.begun == [(1, 0)]
    found, expected = (folder.load_last(CPU) for folder in (broken, stopped))
    for part in ("model", "average", "best_weights", "clean_weights"):
        assert equal(found[part], expected[part]), part
    for name, state in expected["optimizer"]["state"].items():
        assert equal(found["optimizer"]["state"][name], state)
    assert torch.equal(found["random"], expected["random"])
    assert timeless(broken.read_history()) == timeless(stopped.read_history())
    ends = []
    for folder in (broken, stopped):
        model = make_model(seed=7)
        ends.append((model, fit(model, make_dataset(), DEFENSE, EACH_EPOCH, out=folder.path, resume=True)))
    assert_same_run(*ends)


def test_there_is_never_more_than_one_writer(
    tmp_path: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(monkeypatch)
    fit(make_model(), make_dataset(), DEFENSE, replace(OPTIONS, epochs=2), out=tmp_path)
    assert writer.most == 1
    steps = [(epoch, step) for epoch in range(2) for step in range(1, 6)]
    assert writer.begun == sorted([*steps, (1, 0), (2, 0)])
    assert RunFolder(tmp_path).load_last(CPU)["state"]["epoch"] == 2


@pytest.mark.parametrize("which", ["save_weights", "save_last", "write_history"])
@pytest.mark.parametrize("last", [False, True])
def test_an_error_of_the_writer_ends_the_run(
    which: str, last: bool, tmp_path: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the first epoch's checkpoint before the next one, that of the last before the run counts as finished."""
    options, asked = replace(EACH_EPOCH, epochs=1 if last else 3), StopAt(set())

    def full(folder: RunFolder, *given: object) -> None:
        raise DiskFull(folder.last, "")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, which, full)
        with pytest.raises(DiskFull, match=r"last\.pt"):
            fit(make_model(), make_dataset(), DEFENSE, options, out=tmp_path, should_stop=asked)
    assert asked.count < 16  # before another checkpoint would have been due
    assert "finished" not in (tmp_path / "log.txt").read_text()
    model, other = make_model(seed=2), make_model()
    result = fit(model, make_dataset(), DEFENSE, options, out=tmp_path, resume=True)
    assert len(RunFolder(tmp_path).read_history()) == len(result.history) == options.epochs
    if which == "write_history":  # so there was a checkpoint to go on from
        fit(other, make_dataset(), DEFENSE, options)
        assert equal(model.state_dict(), other.state_dict())


def test_who_stops_finds_the_checkpoint(
    tmp_path: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(monkeypatch, held=True)
    threading.Timer(0.2, writer.released.set).start()
    with pytest.raises(Interrupted):
        fit(make_model(), make_dataset(), DEFENSE, EACH_EPOCH, out=tmp_path, should_stop=StopAt({3}))
    assert writer.in_time
    assert RunFolder(tmp_path).load_last(CPU)["state"]["step"] == 3


def test_loggers_hear_of_epochs_that_are_on_the_disk(tmp_path: Path, make_dataset: MakeData) -> None:
    """So a killed run never makes an epoch again that they have."""
    kept = []

    class Logger:
        def write(self, record: dict[str, float]) -> None:
            kept.append((record["epoch"], RunFolder(tmp_path).load_last(CPU)["state"]["epoch"]))

        def close(self, *, finished: bool) -> None:
            kept.append((finished, len(RunFolder(tmp_path).read_history())))

    fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=tmp_path, loggers=[Logger()])
    assert [first for first, _ in kept] == [1, 2, 3, True]
    assert all(on_disk >= epoch for epoch, on_disk in kept[:3])
    assert kept[3] == (True, 3)


# The parts by themselves.


def test_a_state_in_host_memory_is_a_copy() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network.append(network[0])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "of": [(1, "a"), None]}
    before, copied = copy.deepcopy(state), on_host(state)
    optimizer.step()
    assert not torch.equal(state["model"]["0.weight"], before["model"]["0.weight"])
    assert equal(copied["model"], before["model"])
    assert torch.equal(
        copied["optimizer"]["state"][0]["momentum_buffer"], before["optimizer"]["state"][0]["momentum_buffer"]
    )
    assert copied["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    assert copied["of"] == [(1, "a"), None]
    assert copied["model"]._metadata == before["model"]._metadata
    assert copied["model"]["2.weight"] is copied["model"]["0.weight"]
    settled = on_host(before["model"], copied=False)
    assert settled["0.weight"].data_ptr() == before["model"]["0.weight"].data_ptr()


def test_work_is_waited_for_whatever_ends_the_block() -> None:
    done: list[str] = []
    held = threading.Event()

    def work() -> None:
        assert held.wait(LIMIT_S)
        done.append("work")

    def begin_and_break_off() -> None:
        with Saver() as saver:
            saver.start(work)
            saver.after(lambda: done.append("after"))
            saver.poll()
            assert done == []
            threading.Timer(0.1, held.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_break_off()
    assert done == ["work", "after"]


@pytest.mark.parametrize("then", ["after", "start", "wait"])
def test_an_error_of_the_work_is_raised(then: str) -> None:
    called: list[int] = []

    def fail() -> None:
        raise PermissionError("not yours")

    def go_on() -> None:
        with Saver() as saver:
            saver.start(fail)
            if then == "after":
                saver.after(lambda: called.append(1))
            elif then == "start":
                saver.start(lambda: called.append(2))

    with pytest.raises(PermissionError, match="not yours"):
        go_on()
    assert called == []


def test_an_error_of_the_work_is_a_note_to_that_of_the_training() -> None:
    def fail() -> None:
        raise PermissionError("not yours")

    def break_off() -> None:
        with Saver() as saver:
            saver.start(fail)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        break_off()
    assert raised.value.__notes__ == ["the last checkpoint was not written: not yours"]

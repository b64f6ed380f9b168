"""The form of passes is chosen by timing them, if it is not asked for and the work is worth it."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustmaps import InputError
from robustmaps.engine import speed
from robustmaps.engine.speed import Choice, Form, Pass, attack_pass, choose

BF16, FP32 = Form("bf16"), Form()
COMPILED, BOTH = Form("fp32", True), Form("bf16", True)
X, Y = torch.rand(64, 3, 8, 8), torch.zeros(64, dtype=torch.long)
LONG, VERY_LONG = 1e5, 1e9


class Machine:
    """Passes that take as long as it says, or fail."""

    def __init__(self, **milliseconds: float) -> None:
        self.milliseconds = milliseconds
        self.passes: list[str] = []

    def __call__(self, form: Form) -> Pass:
        def one(x: Tensor, y: Tensor) -> None:
            self.passes.append(str(form))
            time.sleep(self.milliseconds[str(form).replace(", ", "_")] / 1000 * len(x) / len(X))

        return one


def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_here", {})
    monkeypatch.setattr(speed, "_looks", {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path))
    as_in_a_new_process(monkeypatch)
    monkeypatch.setattr(speed, "_TIMED_S", 0.05)
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def chosen(machine: Machine, passes: float = LONG, precision: str = "auto", compiled: bool = False) -> Choice:
    return choose(precision, compiled, nn.Linear(2, 2), X, Y, passes, what="attack", make=machine)


def test_the_fastest_form_is_taken_and_told() -> None:
    fast = chosen(Machine(fp32=10, bf16=5))
    assert fast.form == BF16
    assert "ms in fp32" in str(fast)
    assert str(fast).startswith("bf16 (")


def test_the_simpler_form_stays_if_the_other_is_hardly_faster() -> None:
    assert chosen(Machine(fp32=10, bf16=9.8)).form == FP32
    assert chosen(Machine(fp32=4, bf16=40)).form == FP32


def test_what_was_asked_for_is_not_measured() -> None:
    machine = Machine()
    assert chosen(machine, precision="bf16") == Choice(BF16)
    assert chosen(machine, precision="fp32", compiled=True) == Choice(COMPILED)
    assert not machine.passes
    with pytest.raises(InputError, match="unknown precision 'half'"):
        chosen(machine, precision="half")


def test_little_work_is_not_worth_measuring(tmp_path: Path) -> None:
    machine = Machine(fp32=8, bf16=1)
    assert chosen(machine, passes=1) == Choice(FP32, "too little work to measure")
    assert not machine.passes
    assert chosen(machine, passes=100) == Choice(FP32, "too little work to measure")
    assert set(machine.passes) == {"fp32"}
    assert not list(tmp_path.iterdir())


def test_compiling_is_tried_for_long_work_or_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(fp32=10, bf16=8, fp32_compiled=9, bf16_compiled=4)
    assert chosen(machine).form == BF16
    assert not any("compiled" in name for name in machine.passes)
    assert chosen(machine, VERY_LONG).form == BOTH
    assert chosen(machine, compiled=True).form == BOTH

    def no_compiler() -> None:
        raise InputError("none")

    monkeypatch.setattr(speed, "require_compiler", no_compiler)
    assert chosen(machine, VERY_LONG).form == BF16


def test_a_form_that_does_not_apply_is_left_out() -> None:
    assert chosen(Machine(fp32=5)).form == FP32  # bf16 raises
    assert chosen(Machine()).form == FP32  # so does fp32, which the work itself will say


def test_it_is_measured_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(fp32=10, bf16=5)
    first = chosen(machine)
    machine.passes.clear()
    as_in_a_new_process(monkeypatch)
    assert chosen(machine) == first
    assert not machine.passes
    # The same decision for short work as before anything was measured.
    assert chosen(machine, passes=100).form == FP32
    other = choose("auto", False, nn.Linear(2, 3), X, Y, LONG, what="attack", make=machine)
    assert machine.passes, "another network"
    assert other.form == BF16


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-9],
        lambda text: text.replace("bf16", "bf17"),
        lambda text: json.dumps({**json.loads(text), "seconds": {"fp32": -1.0, "bf16": 1.0}}),
        lambda text: json.dumps({"seconds": [1]}),
        lambda text: "[]",
    ],
)
def test_a_damaged_measurement_is_made_again(
    change: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(fp32=10, bf16=5)
    chosen(machine)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(change(path.read_text()))
    as_in_a_new_process(monkeypatch)
    machine.passes.clear()
    assert chosen(machine).form == BF16
    assert machine.passes


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "file"))
    assert chosen(Machine(fp32=10, bf16=5)).form == BF16


def test_on_a_busy_machine_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (1e3, 0.0, 0.0))
    assert chosen(Machine(fp32=10, bf16=5)).form == BF16
    assert not list(tmp_path.iterdir())


def test_one_process_decides_once_however_busy_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (1e3, 0.0, 0.0))
    assert chosen(Machine(fp32=10, bf16=5)).form == BF16
    assert chosen(Machine(fp32=10, bf16=40)).form == BF16
    as_in_a_new_process(monkeypatch)
    worth_it, little = 3 * speed._WORTH_MEASURING_S, "too little work to measure"
    passes = worth_it / 0.008
    assert chosen(Machine(fp32=1, bf16=0.5), passes).because == little
    assert chosen(Machine(fp32=8, bf16=4), passes).because == little, "the first look is remembered"


def test_of_a_large_network_few_images_are_passed() -> None:
    sizes = []

    def make(form: Form) -> Pass:
        return lambda x, y: (sizes.append(len(x)), time.sleep(0.01 * len(x)))

    choose("auto", False, nn.Linear(2, 2), X, Y, LONG, what="attack", make=make)
    assert max(sizes) < 20


def test_timing_real_passes_changes_nothing() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    choice = choose("auto", False, network, X, Y, LONG, what="attack", make=attack_pass(network))
    assert choice.because.startswith(tuple("123456789"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(p.grad is None for p in network.parameters())


def test_forms_as_text() -> None:
    for form in (FP32, BF16, COMPILED, BOTH, Form("tf32")):
        assert Form.of(str(form)) == form
    with pytest.raises(InputError, match=r"form='fp16': expected one of 'fp32'"):
        Form.of("fp16")

"""A run computes in the forms that it began with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustmaps import TrainOptions, fit
from robustmaps.attacks import PGD
from robustmaps.data import Dataset
from robustmaps.defenses import AT, Standard
from robustmaps.engine import speed
from robustmaps.engine.errors import Interrupted
from robustmaps.engine.speed import Choice, Form
from robustmaps.training import Forms, RunFolder, choose_forms

MakeData = Callable[..., Dataset]
OPTIONS = TrainOptions(epochs=2, batch_size=16, lr=0.05, device="cpu")
DEFENSE = AT(PGD(eps=0.1, steps=2))
MIXED = Forms(Choice(Form("bf16"), "measured"), Choice(Form("fp32")))


def network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def trained(data: Dataset, out: Path, **settings: Any) -> tuple[nn.Module, Forms]:
    model = network()
    return model, fit(model, data, DEFENSE, OPTIONS, out=out, **settings).forms


def test_a_resumed_run_keeps_its_forms(make_dataset: MakeData, tmp_path: Path) -> None:
    data = make_dataset()
    whole, forms = trained(data, tmp_path / "whole", forms=MIXED)
    assert forms == MIXED
    left = iter(range(3))
    with pytest.raises(Interrupted):
        trained(data, tmp_path / "run", forms=MIXED, should_stop=lambda: next(left, None) is None)
    resumed, kept = trained(data, tmp_path / "run", resume=True)
    assert kept.to_dict() == MIXED.to_dict() == {"attack": "bf16", "training": "fp32"}
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    folder = RunFolder(tmp_path / "run")
    assert folder.read_environment()["forms"] == MIXED.to_dict()
    assert folder.read_environment()["precision"] == "bf16"
    assert "computing in attacks in bf16 (measured), training passes in fp32" in (folder.path / "log.txt").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_of_before_goes_on_as_its_environment_says(
    precision: str, make_dataset: MakeData, tmp_path: Path
) -> None:
    left = iter(range(3))
    one = Choice(Form(precision))
    with pytest.raises(Interrupted):
        trained(make_dataset(), tmp_path, forms=Forms(one, one), should_stop=lambda: next(left, None) is None)
    folder = RunFolder(tmp_path)
    state = folder.load_last(torch.device("cpu"))
    del state["forms"]
    folder.save_last(state)
    recorded = json.loads(folder.environment.read_text())
    del recorded["forms"], recorded["checksum"]
    folder.environment.write_text(json.dumps(recorded))
    assert trained(make_dataset(), tmp_path, resume=True)[1].to_dict() == {"attack": precision, "training": precision}


def test_attacks_and_training_passes_are_measured_apart(
    make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "_TIMED_S", 0.01)
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(speed, "_WORTH_MEASURING_S", 0.0)
    model, data = network(), make_dataset()
    options = TrainOptions(epochs=1000, batch_size=16)
    before = [p.clone() for p in model.parameters()]
    x = data.train.tensors()[0][:16]
    forms = choose_forms(model, data, DEFENSE, options, None, x)
    assert {json.loads(path.read_text())["about"]["pass"] for path in tmp_path.rglob("*.json")} == {
        "attack",
        "training",
    }
    assert " ms for " in forms.attack.because
    assert " ms for " in forms.training.because
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))
    # Without an attack there is nothing to choose for it.
    assert choose_forms(model, data, Standard(), options, None, x).attack.because == "too little work to measure"

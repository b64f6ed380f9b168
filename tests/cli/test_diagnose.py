"""``robustmaps diagnose``, as a person or a script meets it."""

import json
from pathlib import Path

import pytest

from robustmaps.cli import main
from robustmaps.engine.reading.plain import read_json
from robustmaps.runs import _diagnosis, diagnose_checkpoint

TRAIN = "train --eps 0.1 --steps 1 --batch-size 128 --device cpu --precision fp32 --epochs 2"

OWN = """
import torch
from torch import nn

class Rounded(nn.Module):
    def forward(self, x):
        return (4 * x).round() / 4

def network():
    torch.manual_seed(0)
    return nn.Sequential(Rounded(), nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN.split(), "--out", str(folder)]) == 0
    return next(folder.iterdir())


def test_a_run_as_json(run, capsys):
    assert main(["diagnose", str(run), "--samples", "20", "--surrogate", str(run), "--json"]) == 0
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert (values["norm"], values["eps"], values["images"]) == ("linf", 0.1, 20)
    assert values["suspects"] == []
    assert len(values["findings"]) == 11
    assert "black-box" in captured.err
    path = Path(values.pop("file"))
    assert path.parent == run / "evaluation"
    assert path.name.startswith("diagnosis-linf-0.1-test20-")
    assert read_json(path) == values
    assert values["checkpoint_sha256"]
    assert len(values["computes"]) == 56


def test_a_run_as_a_table(run, capsys, tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--samples", "10", "--surrogate", str(run), "--norm", "l2", "--eps", "64/255", "--out", str(out)]
    assert main(["diagnose", str(run), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "what was found" in printed
    assert "No check found a sign" in printed
    assert "10 test images, l_2, eps 64/255" in printed
    assert out.exists()


def test_a_masked_network_of_ones_own_points_to_the_pages(capsys, tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_diagnosis, "_SURROGATE_EPOCHS", 1)
    monkeypatch.setattr(_diagnosis, "_SURROGATE_IMAGES", 100)
    (tmp_path / "own_masked.py").write_text(OWN)
    network = ["own_masked:network", "--data", "digits", "--eps", "0.01", "--samples", "100"]
    assert main(["diagnose", *network, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "zero-gradients is suspect: robustmaps explain zero-gradients" in captured.out
    assert "transfer: surrogate, epoch 1/1" in captured.err
    assert list((tmp_path / "evaluation" / "network").glob("diagnosis-linf-0.01-test100-*.json"))


def test_the_surrogate_is_the_same_for_the_same_seed(run, digits, monkeypatch):
    monkeypatch.setattr(_diagnosis, "_SURROGATE_EPOCHS", 1)
    monkeypatch.setattr(_diagnosis, "_SURROGATE_IMAGES", 100)
    first, again = (diagnose_checkpoint(run, data=digits, samples=10, eps=0.02).diagnosis for _ in range(2))
    assert first.findings == again.findings
    assert "a surrogate" in first["transfer"].text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a run folder"),
        (["nowhere"], "unknown model 'nowhere'"),
        (["no/where"], "no such file"),
        (["resnet8", "--data", "digits"], "would be random"),
    ],
)
def test_bad_input_is_code_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_it_explains_itself(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["diagnose", "--help"])
    assert stop.value.code == 0
    assert "--surrogate" in capsys.readouterr().out

"""``robustmaps evaluate``, as a person or a script meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robustmaps import models
from robustmaps.cli import main
from robustmaps.config import RunConfig, from_mapping
from robustmaps.report import report
from robustmaps.runs import train

SMALL = {"epochs": 2, "eps": 0.1, "steps": 1, "schedule": "one-cycle", "lr": 0.2}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    config = from_mapping(SMALL, RunConfig())
    return str(train(config, tmp_path_factory.mktemp("runs")).folder)


def test_a_table_of_attacks_and_what_each_left(run, capsys):
    assert main(["evaluate", run, "--attack", "autoattack", "--version", "a3", "--samples", "30"]) == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    names = [line[0] for line in lines if line]
    assert names.index("clean") < names.index("a3") < names.index("robust")
    assert "30 test images, l_inf, eps 0.1, seed 0." in captured.out
    assert "Note: a3 has no attack without gradients" in captured.out
    assert "a3: " in captured.err
    assert main(["evaluate", run, "--attack", "autoattack", "--version", "a3", "--samples", "30"]) == 0
    assert "Evaluated before: " in capsys.readouterr().out


def test_a_curve(run, capsys):
    options = ["--attack", "fgsm", "--eps", "8/255,0.1", "--samples", "30"]
    assert main(["evaluate", run, *options, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [point["eps"] for point in values["curve"]] == [8 / 255, 0.1]
    assert Path(values["plot"]).stat().st_size > 5000
    assert main(["evaluate", run, *options]) == 0
    assert "8/255" in capsys.readouterr().out


def test_other_norms_and_libraries(run, capsys):
    for options in (["--attack", "deepfool", "--norm", "l2", "--eps", "0.5"], ["--attack", "apgd-ce", "--norm", "l1"]):
        assert main(["evaluate", run, *options, "--samples", "10", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["norm"] == options[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a run folder, or a network such as resnet18"),
        (["nowhere"], "unknown model 'nowhere'"),
        (["no/where"], "no such file or folder"),
        (["resnet8", "--weights", "w.pt"], "data: needed for resnet8"),
        (["resnet8", "--data", "digits", "--weights", "w.pt"], "w.pt: no such file"),
        (["no.such:thing"], "no module named 'no'"),
        (["--model-from", "no.such:thing"], "no module named 'no'"),
        (
            ["nowhere", "--overshoot", "0.1"],
            "brendel-bethge take it as --attack-parameters overshoot=VALUE",
        ),
        (["nowhere", "--decision-rule=EN"], "ead takes it as --attack-parameters decision_rule=EN"),
    ],
)
def test_bad_networks(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


# SIGTERM asks like Ctrl-C does; SIGINT itself is ignored where a shell started the tests in the background.
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_killed_and_run_again_it_ends_the_same(run, tmp_path, how):
    options = ["--eps", "0.02", "--exhaustive", "--samples", "120", "--batch-size", "4", "--json"]
    command = [sys.executable, "-m", "robustmaps", "evaluate", run, "--attack", "apgd-ce", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = tmp_path / "killed.json"
    process = subprocess.Popen(
        [*command, "--out", str(killed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    state = tmp_path / "killed.partial" / "state.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        stages = json.loads(state.read_text())["found"]["stages"] if state.exists() else []
        if stages and stages[0]["done"]:
            break
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not killed.exists()
    if how == signal.SIGTERM:
        assert "the same command continues" in said
    (stage,) = json.loads(state.read_text())["found"]["stages"]
    assert 0 < stage["done"] < len(stage["rows"])
    results = []
    for out in (killed, tmp_path / "whole.json"):
        again = subprocess.run(
            [*command, "--out", str(out)], capture_output=True, text=True, env=environment, timeout=200, check=True
        )
        results.append(json.loads(again.stdout))
    for key in ("verdicts", "distances", "robust_accuracy"):
        assert results[0][key] == results[1][key]
    assert not state.parent.exists()


def test_transfer_needs_networks_and_names_of_weights_are_known(run, capsys):
    assert main(["evaluate", run, "--attack", "fgsm", "--transfer"]) == 2
    assert "--transfer: expected one or more further runs" in capsys.readouterr().err
    assert main(["evaluate", run, "--weights", "bestrobust"]) == 2
    assert "weights=bestrobust: expected best, best-clean, last of" in capsys.readouterr().err


def test_a_preset_has_one_name_however_it_is_asked_for(run, capsys):
    words = ["evaluate", run, "--samples", "20", "--seed", "5", "--attack"]
    assert main([*words, "pgd", "--steps", "20", "--relative-step", "0.25", "--restarts", "1"]) == 0
    first = capsys.readouterr()
    assert main([*words, "pgd-20"]) == 0
    again = capsys.readouterr()
    assert "Evaluated before" in again.out
    for text in (first.out, again.out):
        assert " pgd-20 " in text
        assert " pgd " not in text
    assert "pgd-20: " in first.err
    assert main(["runs", str(Path(run).parent), "--json", "--evaluation", "pgd-20*"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["attack"] == "pgd-20"


def test_a_warning_is_printed_once(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        torch.save(models.create("resnet8", num_classes=10, in_channels=1).state_dict(), "random.pt")
    words = ["evaluate", "resnet8", "--weights", "random.pt", "--data", "digits", "--samples", "20", "--attack"]
    for attack in (["fgsm"], ["fgsm", "--eps", "0.1,0.2"], ["fgsm,pgd-20", "--each", "--eps", "0.1"], ["fgsm"]):
        assert main([*words, *attack]) == 0
        captured = capsys.readouterr()
        assert (captured.out + captured.err).count("(robustmaps explain chance)") == 1


def test_transfer_names_networks_and_units(run, capsys):
    other = str(train(from_mapping({**SMALL, "seed": 1}, RunConfig()), Path(run).parent).folder)
    assert main(["evaluate", run, "--attack", "fgsm", "--samples", "10", "--transfer", other]) == 0
    out = capsys.readouterr().out
    assert "tried on ResNet-8 · seed 0" in out
    assert "tried on ResNet-8 · seed 1" in out
    assert f"ResNet-8 · seed 1 is {Path(other).name}" in out
    assert re.search(r"seed 0 +\d+\.\d % \[", out)
    text = (report(run, Path(run).parent.parent / "page", pictures=False).path.parent / "report.md").read_text()
    assert "Transfer between networks" in text
    assert "| tried on ResNet-8 · seed 1 |" in text

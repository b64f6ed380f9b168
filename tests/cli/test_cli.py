"""The command, as a person or a script meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from robustmaps import __version__
from robustmaps.cli import main

FAST = "--eps 0.1 --steps 1 --batch-size 256 --device cpu --precision fp32"
TRAIN = ["train", *FAST.split(), "--epochs", "1"]


def robustmaps(*arguments, **kwargs):
    command = [sys.executable, "-m", "robustmaps", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def test_training_past_the_best_epoch_is_said(tmp_path, monkeypatch, capsys):
    arguments = [*TRAIN, "--train-samples", "64", "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--seed", "1"]) == 0
    assert "overfitting" not in capsys.readouterr().out
    monkeypatch.setattr("robustmaps.training.robust_fall", lambda *_: 0.084)
    assert main([*arguments, "--seed", "2"]) == 0
    assert "fell by 8.4 points after epoch 1, whose weights are kept" in capsys.readouterr().out


def test_help_and_version_need_no_torch():
    code = "import sys; from robustmaps.cli import main; c = main(sys.argv[1:]); print('torch' in sys.modules, c)"
    for arguments in (["--help"], ["--version"]):
        out = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        ).stdout
        assert out.endswith("False 0\n")
    assert robustmaps("--version").stdout == f"robustmaps {__version__}\n"


@pytest.mark.parametrize(
    "line", ["evaluate resnet8 --data digits --weights x#{}", "evaluate {}", "diagnose loop", "compare {} {}"]
)
def test_paths_that_no_file_can_have_are_bad_input(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main(line.format("k." * 3000, "l." * 3000).split()) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "evaluate", "demo", "models", "report", "compare", "export"])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ""),
        (["trian"], "unknown verb 'trian'; did you mean 'train'"),
        (["train", "--model", "resnet19"], "did you mean 'resnet18'"),
        (["train", "--model", "resnet18", "--strides", "122"], "expected 4 digits"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--config", "missing.yaml"], "missing.yaml: can't be read"),
        (["train", "--resume", "nowhere"], "not a run folder"),
        (["train", "--init-from", "nowhere"], "unknown model 'nowhere'"),
        (["train", "--model", "timm:resnet18", "--strides", "1122", "--data", "digits"], "are for built-in networks"),
        (["evaluate", "nowhere"], "unknown model 'nowhere'"),
        (["evaluate", "runs/nowhere"], "no such file"),
        (["report", "nowhere"], "no such folder"),
        (["compare", "here", "there"], "here: not a run folder"),
        (["export", "nowhere", "--format", "torch"], "unknown model 'nowhere'"),
        (["export", "runs/nowhere", "--format", "torch"], "no such file"),
        (["models", "--image-size", "1"], "image"),
    ],
)
def test_bad_input_is_code_2_and_says_why(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--stides", "122"], "--strides"),
        (["train", "--init-from"], "--init-from"),
        (["train", "--eps", "8"], "8/255"),
        (["train", "--lr", "x"], "x"),
        (["data"], "list, prepare, show"),
        (["data", "shwo"], "list, prepare, show"),
    ],
)
def test_bad_options_are_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_train_evaluate_as_json(tmp_path, capsys):
    out = ["--out", str(tmp_path), "--json"]
    assert main([*TRAIN, *out]) == 0
    captured = capsys.readouterr()
    trained = json.loads(captured.out)
    assert trained["best_epoch"] == 1
    assert trained["config"]["eps"] == 0.1
    assert main([*TRAIN, *out]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["evaluate", trained["run"], "--steps", "1", "--restarts", "1", "--samples", "50", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert len(evaluated["verdicts"]) == 50
    assert evaluated["eps"] == 0.1
    assert main(["train", "--resume", trained["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == trained["run"]
    assert main(["train", "--resume", trained["run"], "--seed", "1"]) == 2
    assert "name another run" in capsys.readouterr().err


def test_options_win_over_the_file(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 7\neps: 0.1\nsteps: 1\nbatch_size: 256\n")
    assert main(["train", "--config", str(path), "--epochs", "1", "--out", str(tmp_path), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["epochs"], config["eps"]) == (1, 0.1)


def test_models_and_data_as_json(capsys, tmp_path):
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["resnet18"]["strides"] == "1222"
    assert main(["data", "list", "--json"]) == 0
    assert "digits" in json.loads(capsys.readouterr().out)["known"]
    assert main(["data", "show", "digits", "--json", "--picture", str(tmp_path / "a.png")]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == {"train": 1213, "validation": 135, "test": 449}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["data", "prepare", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["test"] == 449


def test_crops_are_prepared_once(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    for split, name, count in (("train", "a", 6), ("train", "b", 6), ("test", "a", 2), ("test", "b", 2)):
        (tmp_path / "set" / split / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20, 20), (number, 9, 9)).save(tmp_path / "set" / split / name / f"{number}.png")
    crops = ["--image-size", "16", "--augment", "resized-crop"]
    assert main(["data", "prepare", str(tmp_path / "set"), *crops]) == 0
    capsys.readouterr()
    assert main(["data", "show", str(tmp_path / "set"), *crops, "--validation", "4", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["images"]["validation"], about["augmentation"]["resized_crop"]) == (4, 16)
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 1


def test_no_such_recipe(capsys):
    assert main(["recipes", "zzz"]) == 2
    assert "unknown word 'zzz'" in capsys.readouterr().err
    assert main(["recipes", "fat", "resnet8", "published"]) == 2
    assert "no recipe has all of that" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(tmp_path, number):
    arguments = [*TRAIN[:-1], "500", "--out", str(tmp_path), "--schedule", "constant"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robustmaps", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob("*/metrics.jsonl")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    said = re.search(r"robustmaps train --resume (\S+)", err)
    assert said is not None
    assert str(tmp_path) in said[1]
    log = next(tmp_path.glob("*/log.txt")).read_text()
    assert "stopped at epoch" in log


def test_a_run_is_enlarged_and_tuned(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    standard = ["train", *FAST.replace("--steps 1 ", "").split(), "--epochs", "1", "--defense", "standard"]
    assert main([*standard, "--strides", "112", "--out", "first", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    tuning = ["train", "--init-from", first["run"], "--enlarge", "last,dilate", "--epochs", "1", "--device", "cpu"]
    assert main([*tuning, "--defense", "standard", "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    assert tuned["config"]["strides"] == "112"
    assert tuned["config"]["eps"] == first["config"]["eps"]
    assert tuned["config"]["enlarge"] == "where=last,dilate=true"
    assert main(["train", "--resume", tuned["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == tuned["config"]
    assert main([*tuning, "--strides", "122"]) == 2
    assert "contains a network with strides=112" in capsys.readouterr().err

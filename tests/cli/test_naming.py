"""A network and its enlargement are named alike in all verbs; images of other channels are refused with the option."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps import load
from robustmaps.cli import main
from robustmaps.cli._terminal._naming import NAMING, named
from robustmaps.config import parse_surgery
from robustmaps.engine.errors import InputError
from robustmaps.networks import allow_code, open_model

MODULE = """
import torch
from torch import nn

def colour():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )

def grey():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""
TRAIN = "--epochs 1 --steps 1 --batch-size 16 --device cpu"


def no_word(line):
    raise AssertionError(line)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "naming_nets.py").write_text(MODULE)
    monkeypatch.delitem(__import__("sys").modules, "naming_nets", raising=False)
    random = np.random.default_rng(0)
    for name in ("greys", "mixed"):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(12):
                size = (12, 12) if name == "greys" else (12 + number % 3, 14)
                image = Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8))
                image = image.convert("L") if name == "greys" or number % 2 else image
                image.save(tmp_path / name / label / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("verb", sorted(NAMING))
def test_earlier_spellings_of_the_network_are_understood_and_said(verb):
    for words in (["--model", "resnet8"], ["--model=resnet8"], ["--model-from", "resnet8"]):
        told: list[str] = []
        assert named(verb, ["--seed", "1", *words], told.append) == ["resnet8", "--seed", "1"]
        assert f"robustmaps {verb} resnet8" in told[0]


@pytest.mark.parametrize("verb", ["evaluate", "diagnose", "export", "train"])
def test_parts_of_an_enlargement_are_one(verb):
    given = ["net", "--where", "0,-1", "--seed", "1", "--dilate", "--factor=4", "--enlarge", "upsample=2"]
    words = named(verb, given, no_word)
    assert words == ["net", "--seed", "1", "--enlarge", "upsample=2,where=0,-1,dilate=true,factor=4"]
    smoothed = named(verb, ["net", "--where", "last", "--smooth", "blur"], no_word)
    assert parse_surgery(smoothed[-1]) == parse_surgery("last,blur")
    changed = named(verb, ["net", "--activation", "silu", "--enlarge", "0"], no_word)
    assert parse_surgery(changed[-1]) == parse_surgery("0,silu")
    with pytest.raises(InputError, match="--where: expected a value"):
        named(verb, ["net", "--where", "--seed", "1"], no_word)


def test_other_verbs_are_left_alone():
    assert named("models", ["--model", "x", "--where", "y"], no_word) == ["--model", "x", "--where", "y"]


def run_of(capsys):
    return capsys.readouterr().out.partition("Next: robustmaps evaluate ")[2].split()[0]


def test_training_takes_what_other_verbs_take(here, capsys):
    assert main(f"train naming_nets:colour --data mixed --image-size 12 {TRAIN}".split()) == 0
    run = run_of(capsys)
    assert main(f"train {run} --weights last --seed 3 --allow-code {TRAIN}".split()) == 0
    assert "tuned" in run_of(capsys)
    assert main(f"enlarge {run} --where last --save larger --allow-code".split()) == 0
    capsys.readouterr()
    assert main(f"train larger --allow-code {TRAIN}".split()) == 0
    tuned = run_of(capsys)
    values = json.loads((here / tuned / "cost.json").read_text())
    assert values["map_size"] == [6, 6]
    assert main(f"train larger --init-from {run} --allow-code {TRAIN}".split()) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert main(f"train resnet8 --resume {run} --allow-code".split()) == 2
    assert "has its own network; leave resnet8 out" in capsys.readouterr().err


def test_training_begins_with_weights_of_a_file(here, capsys):
    made = open_model("naming_nets:colour").model
    with torch.no_grad():
        made[0].weight.fill_(0.125)
    torch.save({"state_dict": made.state_dict()}, here / "w.pt")
    line = f"--data greys --channels 3 {TRAIN} --lr 1e-9"
    for start in ("naming_nets:colour --weights w.pt", "--init-from naming_nets:colour --weights w.pt"):
        assert main(f"train {start} --out runs-{len(start)} {line}".split()) == 0
        run = run_of(capsys)
        assert "tuned" in run
        with allow_code():
            torch.testing.assert_close(open_model(run).model[0].weight, made[0].weight.detach(), atol=1e-4, rtol=0)
    assert main(f"train naming_nets:colour --weights nowhere.pt {line}".split()) == 2
    assert "nowhere.pt: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "train naming_nets:colour",
        "train --init-from naming_nets:colour --weights w.pt",
        "search naming_nets:colour",
        "advise naming_nets:colour",
        "evaluate naming_nets:colour",
        "diagnose naming_nets:colour",
        "export naming_nets:colour --format torch",
        "plan naming_nets:colour",
        "analyze naming_nets:colour",
        "sweep study.yaml --allow-code",
    ],
)
def test_images_are_asked_for(line, here, capsys):
    (here / "study.yaml").write_text("axes: {seed: [0]}\nfixed: {model: 'naming_nets:colour'}\n")
    assert main(line.split()) == 2
    assert "data: needed for" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        f"train NET {TRAIN}",
        "evaluate NET --attack fgsm",
        "diagnose NET",
        "export NET --format torch",
        "plan NET",
        "analyze NET",
        "enlarge NET --where last",
        "evaluate NET --attack fgsm --enlarge last",
        f"train NET --enlarge last {TRAIN}",
    ],
)
def test_other_channels_are_refused_with_the_option(line, here, capsys):
    assert main([*line.replace("NET", "naming_nets:colour").split(), "--data", "greys"]) == 2
    assert "takes images of 3 channels, and these have 1; --channels 3" in capsys.readouterr().err
    given = "--data mixed --image-size 12"
    assert main([*line.replace("NET", "naming_nets:grey").split(), *given.split()]) == 2
    assert "takes images of 1 channel, and these have 3; --channels 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
@pytest.mark.parametrize(
    "line",
    ["evaluate NET --attack fgsm", "plan NET --gain none", "analyze NET --steps 0", "export NET --format safetensors"],
)
def test_images_of_any_shape_are_brought_to_one(line, here, capsys):
    for net, given in (
        ("colour", "--data mixed --image-size 12"),
        ("grey", "--data mixed --image-size 9 --channels 1"),
    ):
        assert main([*line.replace("NET", f"naming_nets:{net}").split(), *given.split()]) == 0
    assert main([*line.replace("NET", "naming_nets:grey").split(), "--data", "mixed"]) == 2
    assert "--image-size" in capsys.readouterr().err


def test_the_same_enlargement_has_one_folder(here, capsys):
    for words in ("--enlarge last,dilate", "--where last --dilate", "--enlarge where=last,dilate=true"):
        line = "evaluate naming_nets:colour --data mixed --image-size 12 --attack fgsm --json"
        assert main([*line.split(), *words.split()]) == 0
    names = {json.loads(text)["file"] for text in capsys.readouterr().out.splitlines()}
    assert len(names) == 1
    assert "colour-last,dilate" in names.pop()


@pytest.mark.parametrize("verb", ["train", "plan", "analyze", "enlarge --where last", "search"])
def test_strides_that_leave_no_pixel_are_refused(verb, capsys):
    name, *rest = verb.split()
    assert main([name, "resnet8", *rest, "--strides", "999", "--data", "digits"]) == 2
    assert "divide a side by 729, and the images of digits have 8 pixels" in capsys.readouterr().err


def test_python_brings_images_to_a_shape_too(here):
    network = load("naming_nets:colour", data="mixed", image_size=10)
    assert network.data.image_size == (10, 10)
    assert load("naming_nets:grey", data="mixed", image_size=10, channels=1).data.in_channels == 1
    with pytest.raises(InputError, match="--channels 3"):
        _ = load("naming_nets:colour", data="greys").data

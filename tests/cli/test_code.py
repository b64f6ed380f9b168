"""Code runs if it was typed, or with --allow-code; never because a file names it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustmaps.cli import main
from robustmaps.cli._main import VERBS
from robustmaps.config import DataConfig, read_config
from robustmaps.engine.errors import InputError
from robustmaps.engine.trust import LIBRARIES, Trust, allow_code, names_code, present_trust, trusting
from robustmaps.networks import Resolver, open_checkpoint, open_model
from robustmaps.networks._libraries import _LIBRARIES
from robustmaps.report import render_markdown, report
from robustmaps.training import load_weights, save_weights
from tests.helpers.zoo import define_torchvision_operators

MODULE = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("imported").touch()

def make():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""
TRAIN = ["--data", "digits", "--epochs", "1", "--steps", "1", "--train-samples", "100", "--device", "cpu"]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run whose weights and configuration name a function that nobody typed."""
    folder = tmp_path_factory.mktemp("hostile")
    assert main(["train", *TRAIN, "--out", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    weights, header = load_weights(run / "best.safetensors")
    about = json.loads(header["robustmaps"])
    about["model"]["name"] = "hostile_code:make"
    save_weights(run / "best.safetensors", weights, {"robustmaps": json.dumps(about)})
    # As somebody writes it who wants it read: without the checksum, in a folder with a name of its own.
    run = run.rename(run.with_name("run"))
    _, _, text = (run / "config.yaml").read_text().partition("\n")
    (run / "config.yaml").write_text(text.replace("model: resnet8", "model: hostile_code:make"))
    return folder


@pytest.fixture
def hostile(template, tmp_path, monkeypatch):
    shutil.copytree(template / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile_code.py").write_text(MODULE)
    monkeypatch.delitem(__import__("sys").modules, "hostile_code", raising=False)
    (run,) = (tmp_path / "runs").iterdir()
    (tmp_path / "run.yaml").write_text("model: hostile_code:make\n")
    (tmp_path / "init.yaml").write_text(f"init_from: {run}\n")
    (tmp_path / "named.yaml").write_text("init-from: hostile_code:make\n")
    (tmp_path / "axis.yaml").write_text("axes: {model: ['hostile_code:make'], seed: [0]}\nfixed: {data: digits}\n")
    (tmp_path / "coupled.yaml").write_text("axes: {seed: [0], a: [{model: 'hostile_code:make'}]}\n")
    (tmp_path / "fixed.yaml").write_text(f"axes: {{seed: [0]}}\nfixed: {{init_from: {run}}}\n")
    return run


@pytest.mark.parametrize(
    "line",
    [
        "evaluate RUN --samples 5",
        "evaluate RUN/best.safetensors --samples 5",
        "diagnose RUN --samples 5",
        "analyze RUN --samples 5",
        "plan RUN --samples 5",
        "enlarge RUN --where last",
        "export RUN --format safetensors",
        "train --init-from RUN",
        "train --resume RUN",
        "reproduce RUN",
        "train --defense hat --helper RUN",
        "train --config run.yaml",
        "train --config init.yaml",
        "train --config named.yaml",
        "search resnet8 --config init.yaml",
        "search axis.yaml",
        "sweep axis.yaml",
        "sweep coupled.yaml --dry-run",
        "sweep fixed.yaml",
    ],
)
def test_what_a_file_names_is_not_run(line, hostile, capsys):
    assert main(line.replace("RUN", str(hostile)).split()) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "names the network 'hostile_code:make', a function whose code would be run" in error
    assert re.search(r"\.(safetensors|yaml)\S* (axes |fixed)?.*names the network", error), "the file is named"
    assert "add --allow-code" in error
    assert "type the name yourself (train hostile_code:make)" in error
    assert not (hostile.parents[1] / "imported").exists()


@pytest.mark.parametrize("line", ["report RUN", "runs runs", "compare RUN RUN"])
def test_lists_and_reports_run_nothing_either(line, hostile):
    (hostile / "cost.json").unlink()  # the network would be opened to compute it
    main(line.replace("RUN", str(hostile)).split())
    assert not (hostile.parents[1] / "imported").exists()


def test_a_report_says_why_it_has_no_pictures(hostile):
    assert main(["report", str(hostile)]) == 0
    assert "whose code would be run" in (hostile / "report" / "index.html").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "train --model hostile_code:make --out typed",
        "train --config run.yaml --model=hostile_code:make --out both",
        "train --config run.yaml --allow-code --out allowed",
        "sweep axis.yaml --dry-run --allow-code",
    ],
)
def test_what_is_typed_or_allowed_is_run(line, hostile):
    rest = [] if line.startswith("sweep") else TRAIN
    assert main([*line.split(), *rest]) == 0
    assert (hostile.parents[1] / "imported").exists()


def test_a_run_of_one_s_own_is_opened_again(hostile, capsys):
    assert main(["train", "--model", "hostile_code:make", "--out", "typed", *TRAIN]) == 0
    run = capsys.readouterr().out.partition("Next: robustmaps evaluate ")[2].split()
    assert run[1:] == ["--allow-code"]
    assert main(["evaluate", *run, "--samples", "5", "--attack", "fgsm"]) == 0
    shutil.rmtree(Path(run[0]) / "evaluation")
    capsys.readouterr()
    assert main(["compare", run[0], str(hostile)]) == 2
    assert f"robustmaps evaluate {run[0]} --attack autoattack --allow-code" in capsys.readouterr().err
    for name in ("metrics.jsonl", "log.txt"):
        (Path(run[0]) / name).unlink()
    with allow_code():
        page = render_markdown(report(run[0], pictures=False).page)
    assert f"robustmaps train --resume {run[0]} --allow-code" in page
    assert main(["train", "--resume", run[0], "--model", "hostile_code:make"]) == 0
    assert main(["train", "--resume", run[0]]) == 2


@pytest.mark.slow
def test_a_sweep_hands_its_trust_on_to_its_processes(hostile):
    (hostile.parents[1] / "axis.yaml").write_text(
        "axes: {model: ['hostile_code:make'], seed: [0]}\n"
        "fixed: {data: digits, epochs: 1, steps: 1, train_samples: 100}\n"
        "evaluation: {attack: fgsm, samples: 10}\n"
    )
    assert main(["sweep", "axis.yaml", "--allow-code"]) == 0


def test_verbs_that_open_no_networks_do_not_take_it():
    with pytest.raises(SystemExit) as stop:
        main(["models", "--allow-code"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "verb", [verb for verb in VERBS if verb not in ("demo", "theory", "data", "recipes", "models", "explain")]
)
def test_the_help_explains_it(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "With --allow-code, files may name functions" in " ".join(
        re.sub("[│╭╮╰╯]", " ", capsys.readouterr().out).split()
    )


def test_in_python_the_name_is_typed_and_the_file_is_allowed(hostile):
    with pytest.raises(InputError, match="whose code would be run"):
        open_checkpoint(hostile)
    with pytest.raises(InputError, match=r"run\.yaml: names the network"):
        read_config("run.yaml", make=Resolver().complete)
    with allow_code("another:function"), pytest.raises(InputError, match="whose code would be run"):
        open_checkpoint(hostile)
    assert not (hostile.parents[1] / "imported").exists()
    with allow_code("hostile_code:make"):
        assert read_config("run.yaml").model.model == "hostile_code:make"
    assert open_model("hostile_code:make").model(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    assert present_trust() == Trust()


def test_trust_ends_with_its_block_and_adds_up():
    with trusting(Trust(frozenset({"a:b"}))), allow_code("c:d"):
        assert present_trust() == Trust(frozenset({"a:b", "c:d"}))
    with pytest.raises(ZeroDivisionError), allow_code():
        _ = 1 / 0
    assert present_trust() == Trust()


def test_names_of_libraries_are_no_code():
    assert {*LIBRARIES, "robustbench"} == set(_LIBRARIES)  # whose loader runs code of its own: only if it was typed
    assert not any(map(names_code, ["resnet8", "timm:resnet18", "hf:owner/name", *(f"{kind}:x" for kind in LIBRARIES)]))
    assert all(map(names_code, ["os:abort", ":x", "robustbench:x", "Timm:x", "timm.models:x", "a/b:c", " hf:x"]))


def test_the_name_of_a_folder_is_not_the_name_of_a_function(hostile, capsys):
    folder = hostile.rename("hostile_code:make")
    assert main(["evaluate", folder.name, "--samples", "5"]) == 2
    assert "names the network 'hostile_code:make'" in capsys.readouterr().err
    assert not folder.with_name("imported").exists()


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("enlarge",), [{"upsample": 2.0, "image_size": [900_000, 900_000]}]),
        (("model", "num_classes"), 2**40),
        (("data", "data"), [5]),
        (("data", "train_samples"), "many"),
        (("classes",), [1] * 10),
        (("image_size",), "88"),
    ],
)
def test_a_description_of_other_types_or_sizes_is_refused(where, value, tmp_path):
    opened = replace(open_model("resnet8"), data=DataConfig())
    about = opened.describe()
    holder = about[where[0]] if len(where) > 1 else about
    holder[where[-1]] = value
    save_weights(tmp_path / "w.safetensors", opened.model.state_dict(), {"robustmaps": json.dumps(about)})
    with pytest.raises(InputError, match=r"w\.safetensors"):
        open_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:hf-hub:owner/name", "timm has no network"),
        ("timm:local-dir:.", "timm has no network"),
        ("timm:resnet18/../x", "timm has no network"),
        ("timm:models", "timm has no network"),
        ("pytorchcv:get_model", "pytorchcv has no network"),
        ("pytorchcv:os.system", "pytorchcv has no network"),
        ("torchvision:get_model", "torchvision has no network"),
        ("torchvision:os.system", "torchvision has no network"),
        ("hf:.", "could not be made"),
    ],
)
def test_a_library_s_names_reach_its_own_list_alone(name, message, monkeypatch, tmp_path):
    define_torchvision_operators()
    pytest.importorskip(
        {"hf": "transformers", "pytorchcv": "pytorchcv.model_provider"}.get(kind := name.partition(":")[0], kind)
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_model(name)


def test_pytorchcv_s_networks_are_opened_by_name(tmp_path):
    define_torchvision_operators()
    pytest.importorskip("pytorchcv.model_provider")
    opened = open_model("pytorchcv:resnet20_cifar10")
    assert opened.model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert (opened.trained, opened.image_px) == (False, 32)
    header = {"robustmaps": json.dumps({**opened.describe(), "trained": True})}
    save_weights(tmp_path / "w.safetensors", opened.model.state_dict(), header)
    assert open_checkpoint(tmp_path / "w.safetensors").architecture == "pytorchcv:resnet20_cifar10"


def test_a_hub_s_own_code_and_kernels_are_not_run(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    about = json.loads((tmp_path / "net" / "config.json").read_text())
    (tmp_path / "net" / "own.py").write_text("raise SystemExit('EXECUTED')")
    hostile = {
        "kernel": {"_attn_implementation": "owner/kernel"},
        "code": {
            "auto_map": {"AutoModelForImageClassification": "own.Net", "AutoConfig": "own.Config"},
            "model_type": "own",
        },
    }
    for change in hostile.values():
        (tmp_path / "net" / "config.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(InputError, match="could not be made"):
            open_model(f"hf:{tmp_path / 'net'}")
    (tmp_path / "net" / "config.json").write_text(json.dumps(about))
    assert open_model(f"hf:{tmp_path / 'net'}").model(torch.rand(1, 3, 32, 32)).shape == (1, 3)
    pickled = tmp_path / "net" / "pytorch_model.bin"
    torch.save({}, pickled)
    (tmp_path / "net" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="could not be made"):
        open_model(f"hf:{tmp_path / 'net'}")

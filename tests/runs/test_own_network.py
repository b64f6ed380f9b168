"""A network of one's own: before and after is three commands and a page, and its results are like those of a run."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import robustmaps
from robustmaps.cli import main
from robustmaps.engine.errors import InputError
from robustmaps.engine.trust import allow_code
from robustmaps.networks import open_trained
from robustmaps.runs import read_result, read_runs
from robustmaps.training import ENLARGED

MODULE = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )
"""
QUICK = ["--attack", "fgsm", "--eps", "2/255", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an own network, its weights, and photographs in two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    (tmp_path / "my_network.py").write_text(MODULE)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    exec(compile(MODULE, "my_network", "exec"), namespace)
    torch.save(namespace["network"]().state_dict(), tmp_path / "weights.pt")  # type: ignore[operator]
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 8)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, (16, 16, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    yield tmp_path
    sys.modules.pop("my_network", None)


def evaluate(*options: str) -> int:
    given = ["my_network:network", "--weights", "weights.pt", "--data", "photos", *options]
    return main(["evaluate", *given, *QUICK])


def test_before_and_after_is_three_commands_and_a_page(here, capsys):
    assert evaluate() == 0
    assert evaluate("--enlarge", "last") == 0
    assert main(["report", "evaluation", "--allow-code"]) == 0
    said = capsys.readouterr().out
    assert "of 2 configurations" in said
    assert "my_network:network" in said
    page = (here / "evaluation/report/index.html").read_text()
    assert "my_network:network, step 1" in page
    assert "train --resume" not in page
    assert "robustmaps evaluate evaluation/network-" in page


def test_it_is_listed_and_compared_like_a_run(here, capsys):
    assert evaluate() == evaluate("--enlarge", "last") == 0
    before, after = sorted(path for path in Path("evaluation").iterdir() if path.is_dir())
    if "last" in before.name:
        before, after = after, before
    capsys.readouterr()
    assert main(["compare", str(before), str(after), "--json"]) == 0
    by_folder = json.loads(capsys.readouterr().out)
    assert by_folder["settings"]["enlarge"] == ["-", "factor=2,where=1"]
    files = [next(path for path in folder.glob("fgsm*.json") if "info" not in path.name) for folder in (before, after)]
    assert main(["compare", *map(str, files), "--json"]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert by_file["robust_difference"] == by_folder["robust_difference"]
    assert main(["runs", "evaluation", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["name"] for row in rows} == {before.name, after.name}
    for row in rows:
        assert row["status"] == "evaluated"
        assert float(row["robust_low"]) <= float(row["robust"]) <= float(row["robust_high"])
        assert row["defense"] == row["epochs"] == ""  # nobody knows them


def test_a_saved_enlargement_is_compared(here, capsys):
    network = ["my_network:network", "--weights", "weights.pt"]
    assert main(["enlarge", *network, "--where", "last", "--data", "photos", "--save", "larger"]) == 0
    assert evaluate() == 0
    assert main(["compare", "evaluation/network-weights", "larger"]) == 2
    assert "robustmaps evaluate larger --data DATA" in capsys.readouterr().err
    assert main(["evaluate", "larger", "--allow-code", "--data", "photos", *QUICK]) == 0
    assert main(["compare", "evaluation/network-weights", "larger"]) == 0
    assert read_result("larger").name == "larger"
    Path("larger").rename("moved")  # with its weights
    assert main(["evaluate", "moved", "--allow-code", "--data", "photos", *QUICK]) == 0


def test_results_of_other_weights_and_of_other_networks_are_kept_apart(here):
    (here / "other_network.py").write_text(MODULE)
    assert evaluate() == 0
    torch.manual_seed(1)
    state = torch.load("weights.pt", weights_only=True)
    torch.save({name: value + 0.01 * torch.rand_like(value.float()) for name, value in state.items()}, "second.pt")
    assert main(["evaluate", "my_network:network", "--weights", "second.pt", "--data", "photos", *QUICK]) == 0
    (here / "elsewhere").mkdir()
    torch.save({name: 2 * value for name, value in state.items()}, "elsewhere/weights.pt")
    elsewhere = ["other_network:network", "--weights", "elsewhere/weights.pt"]
    assert main(["evaluate", *elsewhere, "--data", "photos", *QUICK]) == 0
    records = read_runs("evaluation")
    assert [record.name for record in records] == ["network-second", "network-weights", "network-weights-2"]
    assert [len(record.evaluations) for record in records] == [1, 1, 1]


def test_an_evaluated_network_is_opened_again_only_where_that_is_allowed(here, capsys):
    assert evaluate() == 0
    folder = "evaluation/network-weights"
    with pytest.raises(InputError, match=r"network\.json: names the network 'my_network:network'"):
        open_trained(folder)
    with allow_code():
        assert open_trained(folder).sha256 == open_trained("my_network:network", "weights.pt", data="photos").sha256
    torch.save(open_trained("my_network:network", data="photos").model.state_dict(), "weights.pt")
    with allow_code(), pytest.raises(InputError, match="has other weights now"):
        open_trained(folder)


def test_enlarged_weights_do_not_load_into_the_plain_network(here):
    network = ["my_network:network", "--weights", "weights.pt"]
    assert main(["enlarge", *network, "--where", "last", "--data", "photos", "--save", "larger"]) == 0
    plain = open_trained("my_network:network", "weights.pt", data="photos").model
    with pytest.raises(RuntimeError, match=ENLARGED):
        plain.load_state_dict(load_file("larger/weights.safetensors"))
    with pytest.raises(InputError, match="weights of an enlarged network"):
        robustmaps.load("my_network:network", weights="larger/weights.safetensors")
    with allow_code():
        larger = robustmaps.load("larger")
    x = torch.rand(2, 3, 16, 16)
    assert not torch.allclose(larger(x), plain(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, larger.network.state_dict()[name])


def test_load_gives_a_network_ready_for_single_images(here):
    network = robustmaps.load("my_network:network", weights="weights.pt", data="photos")
    assert not any(module.training for module in network.modules())
    x, y = network.data.test.tensors()
    torch.testing.assert_close(network(x[:1]), network(x)[:1])
    assert (len(x), network.budget, dict(network.evaluations)) == (16, None, {})
    assert evaluate() == 0
    (evaluation,) = network.evaluations.values()
    assert evaluation.eps == 2 / 255
    attack = robustmaps.attacks.FGSM(eps=2 / 255)
    assert robustmaps.evaluate(network, x, y, attack).robust_accuracy == evaluation.robust_accuracy


def test_load_opens_a_run(tmp_path, capsys):
    options = ["--data", "digits", "--epochs", "1", "--steps", "1", "--eps", "0.1", "--device", "cpu"]
    assert main(["train", *options, "--out", str(tmp_path), "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    network = robustmaps.load(run)
    assert network.budget == ("linf", 0.1)
    assert network.data.name == "digits"
    assert main(["evaluate", run, "--samples", "20", "--attack", "fgsm"]) == 0
    assert [evaluation.eps for evaluation in network.evaluations.values()] == [0.1]


def test_load_draws_random_weights_for_a_name():
    network = robustmaps.load("resnet8", data="digits")
    assert network(network.data.test.tensors()[0][:3]).shape == (3, 10)
    assert robustmaps.load("resnet8").data is None


@pytest.mark.parametrize("verb", ["train --model NETWORK", "plan NETWORK", "analyze NETWORK", "evaluate NETWORK"])
def test_data_is_asked_for_and_never_the_digits(verb, here, capsys):
    assert main(verb.replace("NETWORK", "my_network:network").split()) == 2
    assert "data: needed" in capsys.readouterr().err

"""Exports give the original's outputs, or are not kept; the card says what was measured."""

import importlib
import json
import shutil
import sys

import pytest
import torch
import yaml
from torch import nn

from robustmaps.cli import main
from robustmaps.config import AttackConfig, Surgery
from robustmaps.engine.errors import InputError
from robustmaps.networks import enlarge_network, open_checkpoint, save_enlarged
from robustmaps.runs import Options, evaluate_checkpoint, export, train
from robustmaps.runs._export import ExportMismatch
from robustmaps.training import load_weights, save_weights
from tests.helpers.studies import configuration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trained = train(configuration(2), tmp_path_factory.mktemp("runs"))
    done = evaluate_checkpoint(trained.folder, AttackConfig("fgsm"), Options(samples=50, device="cpu"))
    return trained, done.evaluation


def images(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def outputs(form, path, x):
    """In ways that know nothing of how it was exported."""
    if form == "onnx":
        runtime = importlib.import_module("onnxruntime")
        return torch.from_numpy(runtime.InferenceSession(str(path)).run(None, {"images": x.numpy()})[0])
    network = torch.export.load(path).module() if form == "torch" else open_checkpoint(path).model.eval()
    with torch.no_grad():
        return network(x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("form", ["onnx", "torch", "safetensors"])
@pytest.mark.parametrize("count", [1, 5])
def test_outputs_for_any_number_of_images(run, form, count, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    done = export(run[0].folder, form, tmp_path / form)
    assert done.difference < 1e-4 * done.largest
    x = images(count)
    with torch.no_grad():
        expected = open_checkpoint(run[0].folder).model.eval()(x)
    torch.testing.assert_close(outputs(form, done.path, x), expected, rtol=1e-4, atol=1e-5)


def test_figures_that_the_card_leaves_out_are_named(run, tmp_path):
    folder = shutil.copytree(run[0].folder, tmp_path / run[0].folder.name)
    (damaged,) = (path for path in folder.glob("evaluation/fgsm*.json") if "model_info" not in path.name)
    damaged.write_text("{")
    with pytest.warns(UserWarning, match=damaged.name):
        done = export(folder, "safetensors", tmp_path / "out")
    assert "Robust accuracy (FGSM" not in (done.folder / "README.md").read_text()


def test_logits_that_predict_nothing_are_said(run, tmp_path, capsys):
    ignored = shutil.ignore_patterns("evaluation")
    folder = shutil.copytree(run[0].folder, tmp_path / run[0].folder.name, ignore=ignored)
    weights, header = load_weights(folder / "best.safetensors")
    name = next(name for name in reversed(weights) if name.endswith("bias"))
    save_weights(folder / "best.safetensors", {**weights, name: weights[name] * float("nan")}, header)
    assert main(["export", str(folder), "--format", "safetensors"]) == 0
    assert "Note: 64 of them have NaN or infinite logits, so that nothing is predicted." in capsys.readouterr().out
    assert export(folder, "safetensors").undecided == 64


def test_the_card_in_the_form_of_the_hub(run, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    trained, evaluation = run
    done = export(trained.folder, "safetensors", tmp_path / "out")
    card = hub.ModelCard.load(done.folder / "README.md")
    clean, robust = card.data.eval_results
    assert (clean.metric_name, clean.metric_value) == ("Clean accuracy", round(evaluation.clean_accuracy.value, 4))
    assert robust.metric_name == "Robust accuracy (FGSM, l_inf 0.1)"
    assert robust.metric_value == round(evaluation.robust_accuracy.value, 4)
    assert f"| {evaluation.robust_accuracy} |" in card.text
    assert "defence: AT (l_inf, eps 0.1, 1 step)" in card.text
    config = json.loads((done.folder / "config.json").read_text())
    assert config["input"]["shape"] == ["batch", 1, 8, 8]
    assert config["id2label"]["9"] == "9"


def test_weights_alone_were_never_measured(run, tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((run[0].folder / "best.safetensors").read_bytes())
    text = (export(weights, "safetensors").folder / "README.md").read_text()
    assert "these weights have not been evaluated" in text.lower()
    assert "model-index" not in yaml.safe_load(text.split("---")[1])


def test_the_card_of_an_enlarged_network_says_how(run, tmp_path):
    """And claims no training that nobody recorded; a name is text."""
    folder = tmp_path / "<i>larger"
    save_enlarged(enlarge_network(str(run[0].folder), Surgery(where="last"), samples=8, latency_runs=0), folder)
    done = export(folder, "safetensors")
    text = (done.folder / "README.md").read_text().split("---")[2]
    assert "ResNet-8 122; images ×2 (nearest); strides of downsampling step 1 divided by 2 for 10 classes" in text
    assert "intended for l_inf, eps 0.1." in text
    assert "trained adversarially" not in text
    assert "<i>" not in text
    assert json.loads((done.folder / "config.json").read_text())["enlarge"][0]["where"] == [1]


def test_an_export_that_differs_is_not_kept(run, tmp_path, monkeypatch):
    module = importlib.import_module("robustmaps.runs._export")

    class Off(nn.Module):
        def forward(self, x):
            return self.network(x) + 0.01

        def __init__(self, network):
            super().__init__()
            self.network = network

    real = module._READ["safetensors"]
    monkeypatch.setitem(module._READ, "safetensors", lambda file: Off(real(file)))
    with pytest.raises(ExportMismatch, match=r"logits differ by up to 0\.01.*nothing was kept"):
        export(run[0].folder, "safetensors", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bad_input(run, tmp_path):
    with pytest.raises(InputError, match="unknown format 'onx'; did you mean 'onnx'"):
        export(run[0].folder, "onx")
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="exists and is not an earlier result of this kind; name another folder"):
        export(run[0].folder, "torch", tmp_path)


def test_a_missing_library_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'robustmaps\[export\]'"):
        export(run[0].folder, "onnx", tmp_path / "out")


def test_the_verbs(run, tmp_path, capsys):
    folder = run[0].folder
    copy = shutil.copytree(folder, tmp_path / "copy" / folder.name)
    for arguments in (
        ["export", folder, "--format", "safetensors", "--out", tmp_path / "out"],
        ["report", folder, "--no-pictures", "--out", tmp_path / "report"],
        ["compare", folder, copy],
    ):
        assert main([*map(str, arguments), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)
    assert (tmp_path / "report" / "index.html").exists()
    assert main(["export", str(folder), "--format", "torch", "--out", str(tmp_path)]) == 2
    assert "exists and is not an earlier result" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_the_same_export_again_is_no_error(run, tmp_path, form):
    done = export(run[0].folder, form, tmp_path / "out")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in done.folder.iterdir()}
    again = export(run[0].folder, form, tmp_path / "out")
    assert (done.before, again.before) == (False, True)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in done.folder.iterdir()} == before
    (done.folder / "README.md").write_text("my own words")
    with pytest.raises(InputError, match=r"out: contains another result \(README.md differs\)"):
        export(run[0].folder, form, tmp_path / "out")
    assert (done.folder / "README.md").read_text() == "my own words"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_refused_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.setattr("robustmaps.runs._export.data_for", lambda *_: pytest.fail("worked"))
    with pytest.raises(InputError, match="link: a link"):
        export(run[0].folder, "safetensors", tmp_path / "link")

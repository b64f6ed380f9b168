"""Evaluations in files: curves, adversarial images, networks of others, and that nothing is overwritten."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from robustmaps import data, models
from robustmaps.config import AttackConfig, RunConfig, from_mapping
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation, images_sha256
from robustmaps.networks import open_checkpoint, open_network
from robustmaps.runs import (
    Options,
    Yardstick,
    choose_evaluation,
    create_attacks,
    evaluate_checkpoint,
    evaluate_curve,
    read_run,
    train,
)

QUICK = AttackConfig(steps=3, restarts=1)
FEW = Options(samples=40, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    config = from_mapping({"epochs": 2, "eps": 0.1, "steps": 1, "schedule": "one-cycle", "lr": 0.2}, RunConfig())
    return train(config, tmp_path_factory.mktemp("runs")).folder


def test_autoattack_names_the_part_that_broke_each_sample(run):
    done = evaluate_checkpoint(run, AttackConfig("apgd-ce, fab-t"), FEW)
    assert [stage["name"] for stage in done.evaluation.stages] == ["apgd-ce", "fab-t"]
    assert set(done.evaluation.verdicts) <= {"wrong", "robust", "apgd-ce", "fab-t"}
    assert done.path.name.startswith("apgd-ce+fab-t-linf-0.1-test40-")
    assert not list(done.path.parent.glob("*.partial"))


def test_the_same_evaluation_is_not_made_twice(run, tmp_path):
    first = evaluate_checkpoint(run, QUICK, FEW)
    stamp = first.path.stat().st_mtime_ns
    again = evaluate_checkpoint(run, QUICK, FEW)
    assert (first.before, again.before) == (False, True)
    assert again.path.stat().st_mtime_ns == stamp
    assert again.evaluation == first.evaluation


def test_another_evaluation_is_not_overwritten(run, tmp_path):
    done = evaluate_checkpoint(run, QUICK, FEW, out=tmp_path / "result.json")
    before = done.path.read_bytes()
    with pytest.raises(InputError, match="contains another evaluation; name another file with --out"):
        evaluate_checkpoint(run, AttackConfig("fgsm"), FEW, out=tmp_path / "result.json")
    assert done.path.read_bytes() == before


def test_the_images_that_broke_their_samples_are_written(run, tmp_path):
    options = Options(samples=40, device="cpu", save_adversarials=True)
    done = evaluate_checkpoint(run, QUICK, options, out=tmp_path / "result.json")
    saved = load_file(done.adversarials)
    dataset = data.load("digits")
    x, y = dataset.test.subset(40).tensors()
    assert images_sha256(x, y) == done.evaluation.images_sha256
    broken = [row for row, verdict in enumerate(done.evaluation.verdicts) if verdict == "pgd"]
    assert saved["sample"].tolist() == broken
    assert len(broken) > 3
    checkpoint = open_checkpoint(run)
    with torch.no_grad():
        assert bool((checkpoint.model.eval()(saved["image"]).argmax(1) != saved["label"]).all())
    distance = (saved["image"] - x[broken]).abs().flatten(1).amax(1)
    assert distance.tolist() == pytest.approx([done.evaluation.distances[row] for row in broken], abs=1e-6)


def all_break(run, done) -> bool:
    """Whether the images kept of an evaluation are those of all broken samples, and break them."""
    saved = load_file(done.adversarials)
    broken = done.evaluation.clean_correct & ~done.evaluation.robust_correct
    assert saved["sample"].tolist() == broken.nonzero()[0].tolist()
    with torch.no_grad():
        return bool((open_checkpoint(run).model.eval()(saved["image"]).argmax(1) != saved["label"]).all())


def test_a_curve_keeps_the_images_found_at_smaller_radii(run):
    options = Options(samples=40, device="cpu", save_adversarials=True)
    done = evaluate_curve(run, AttackConfig("fgsm", eps=(0.1, 0.2)), options)
    assert done.runs[0].evaluation.robust_accuracy.value < done.runs[0].evaluation.clean_accuracy.value
    assert all(all_break(run, one) for one in done.runs)


def test_images_are_complete_where_a_stopped_evaluation_kept_none(run, tmp_path):
    def stop(progress):
        if progress.phase != "decoding images" and progress.done >= 16:
            raise KeyboardInterrupt

    out = tmp_path / "result.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate_checkpoint(run, QUICK, Options(samples=40, device="cpu", batch_size=8, watcher=stop), out=out)
    assert (tmp_path / "result.partial" / "state.json").exists()
    options = Options(samples=40, device="cpu", batch_size=8, save_adversarials=True)
    assert all_break(run, evaluate_checkpoint(run, QUICK, options, out=out))
    assert not list(tmp_path.glob("*.partial"))


def test_model_info_has_the_fields_of_a_leaderboard(run):
    done = evaluate_checkpoint(run, AttackConfig("autoattack", version="a3"), FEW)
    about = json.loads(done.path.with_name(f"{done.path.stem}.model_info.json").read_text())
    assert about["clean_acc"] == f"{100 * done.evaluation.clean_accuracy.value:.2f}"
    assert about["autoattack_acc"] is None
    assert about["unreliable"] is True
    assert "a3" in about["footnote"]
    assert (about["eps"], about["dataset"], about["architecture"]) == ("0.1", "digits", "resnet8")
    full = evaluate_checkpoint(run, AttackConfig("autoattack", eps=(0.3,)), Options(samples=10, device="cpu"))
    about = json.loads(full.path.with_name(f"{full.path.stem}.model_info.json").read_text())
    assert about["autoattack_acc"] == f"{100 * full.evaluation.robust_accuracy.value:.2f}"
    assert about["unreliable"] is False


def test_a_curve_over_eps_falls(run):
    done = evaluate_curve(run, AttackConfig(steps=3, restarts=1, eps=(0.2, 0.05, 0.1)), FEW)
    values = json.loads(done.path.read_text())
    assert [point["eps"] for point in values["points"]] == [0.05, 0.1, 0.2]
    rates = [run.evaluation.robust_accuracy.value for run in done.runs]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    for point, one in zip(values["points"], done.runs, strict=True):
        assert Evaluation.load(done.path.parent / point["file"]).verdicts == one.evaluation.verdicts
    with Image.open(done.plot) as picture:
        assert picture.width > 600
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("radii", [(), (0.1,), (0.1, 0.1)])
def test_a_curve_needs_radii(run, radii):
    with pytest.raises(InputError, match="two or more radii"):
        evaluate_curve(run, AttackConfig(eps=radii), FEW)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AttackConfig("autoatack"), "did you mean 'autoattack'"),
        (AttackConfig("apgd-ce,sqare"), "did you mean 'square'"),
        (AttackConfig("autoattack", steps=5), "steps=5: autoattack has no such parameter.*takes norm, eps, version"),
        (AttackConfig("cw", norm="linf"), "needs norm='l2'"),
        (AttackConfig(eps=(8.0,)), "8/255"),
    ],
)
def test_bad_attacks(run, config, message):
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(run, config, FEW)


def test_exhaustive_autoattack_is_the_published_one():
    (quick,) = create_attacks(AttackConfig("autoattack"), "linf", 0.1)
    (whole,) = create_attacks(AttackConfig("autoattack", exhaustive=True), "linf", 0.1)
    assert quick.patience is not None
    assert [stage.patience for stage in whole.stages] == [None] * 4


# Networks that are not ours.

OWN = """
import torch.nn as nn

def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def nothing():
    return None
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_networks", None)


def test_a_network_of_ones_own(own):
    model = open_network("own_networks:small").model
    save_file(model.state_dict(), own / "weights.safetensors")
    checkpoint = open_network("own_networks:small", own / "weights.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint.model.state_dict()[name])
    done = evaluate_checkpoint(checkpoint, QUICK, Options(data="digits", samples=20, device="cpu"))
    assert (done.evaluation.norm, done.evaluation.eps) == ("linf", 8 / 255)
    assert done.path.parent == Path("evaluation/small-weights")


@pytest.mark.parametrize(
    ("function", "weights", "message"),
    [
        ("own_networks", None, "unknown model 'own_networks'"),
        ("own_network:small", None, "no module named 'own_network'"),
        ("own_networks.py:small", None, "can import, here or on PYTHONPATH, such as own_networks:small"),
        ("./own_networks.py:small", None, "can import, here or on PYTHONPATH, such as own_networks:small"),
        ("own_networks:smal", None, "did you mean 'small'"),
        ("own_networks:nothing", None, "returned NoneType"),
        ("own_networks:small", "weights.pt", "no such file"),
        ("own_networks:small", "missing.safetensors", "no such file"),
    ],
)
def test_what_is_no_network(own, function, weights, message):
    with pytest.raises(InputError, match=message):
        open_network(function, weights)


def test_weights_of_another_network(own):
    save_file(models.create("resnet8", in_channels=1).state_dict(), own / "weights.safetensors")
    with pytest.raises(InputError, match="the weights don't fit"):
        open_network("own_networks:small", own / "weights.safetensors")


def test_a_network_of_ones_own_needs_data(own):
    with pytest.raises(InputError, match="data: needed"):
        evaluate_checkpoint(open_network("own_networks:small"), QUICK, FEW)


def test_weights_of_other_epochs_have_evaluations_of_their_own(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))
    last, best = (evaluate_checkpoint(open_checkpoint(folder, which), QUICK, FEW) for which in ("last", "best"))
    assert last.path.parent == folder / "evaluation" / "last"
    assert best.path.parent == folder / "evaluation"
    assert (last.evaluation.weights, best.evaluation.weights) == ("last", None)
    record = read_run(folder)
    assert f"last/{last.path.stem}" in record.evaluations
    assert Yardstick.of(last.evaluation) != Yardstick.of(best.evaluation)
    assert "last weights" in Yardstick.of(last.evaluation).text
    assert choose_evaluation(record) == best.path.stem
    (folder / "last.safetensors").write_bytes((folder / "best.safetensors").read_bytes())  # other weights since
    assert evaluate_checkpoint(open_checkpoint(folder / "last.safetensors"), QUICK, FEW).path.parent.name == "last"

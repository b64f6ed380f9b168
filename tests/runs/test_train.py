"""From a configuration to a run folder to an evaluation."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from robustmaps.config import AttackConfig, DataConfig, DefenseConfig, ModelConfig, RunConfig, read_config
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.networks._data import load_data
from robustmaps.runs import Options, evaluate_checkpoint, train
from robustmaps.training import TrainOptions, load_weights

CONFIG = RunConfig(
    ModelConfig(upsample=1.5),
    defense=DefenseConfig(eps=0.1, steps=1),
    training=TrainOptions(epochs=1, batch_size=256, device="cpu", precision="fp32"),
)
ATTACK = AttackConfig(steps=2, restarts=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(CONFIG, tmp_path_factory.mktemp("runs"))


def test_the_folder_says_all(run):
    names = {path.name for path in run.folder.iterdir()}
    expected = {"config.yaml", "metrics.jsonl", "last.pt", "best.safetensors", "log.txt", "environment.json"}
    assert expected <= names
    assert read_config(run.folder / "config.yaml") == run.config
    assert json.loads((run.folder / "metrics.jsonl").read_text())["validation_robust_accuracy"] >= 0
    _, description = load_weights(run.folder / "best.safetensors")
    assert json.loads(description["robustmaps"])["model"]["upsample"] == 1.5


def test_a_run_is_not_overwritten(run):
    before = (run.folder / "last.pt").read_bytes()
    with pytest.raises(InputError, match="already contains this run; continue it with --resume"):
        train(CONFIG, run.folder.parent)
    assert (run.folder / "last.pt").read_bytes() == before


def test_resuming_a_finished_run_gives_its_weights(run):
    again = train(CONFIG, run.folder.parent, resume=True)
    assert again.fit.best_epoch == run.fit.best_epoch
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_evaluation_of_a_folder_and_of_its_weights_alone_agree(run, tmp_path):
    whole = evaluate_checkpoint(run.folder, ATTACK, Options(samples=60, device="cpu"))
    alone = tmp_path / "weights.safetensors"
    shutil.copy(run.folder / "best.safetensors", alone)
    again = evaluate_checkpoint(alone, ATTACK, Options(samples=60, device="cpu"), out=tmp_path / "result.json")
    assert whole.evaluation.verdicts == again.evaluation.verdicts
    assert whole.path.parent == run.folder / "evaluation"
    assert Evaluation.load(again.path).checkpoint_sha256 == whole.evaluation.checkpoint_sha256
    assert whole.evaluation.eps == 0.1


def test_evaluations_with_other_settings_have_other_files(run):
    first = evaluate_checkpoint(run.folder, ATTACK, Options(samples=20, device="cpu"))
    second = evaluate_checkpoint(run.folder, AttackConfig(attack="fgsm", eps=(0.2,)), Options(samples=20, device="cpu"))
    third = evaluate_checkpoint(run.folder, ATTACK, Options(samples=20, device="cpu", seed=1))
    assert len({first.path, second.path, third.path}) == 3
    assert second.evaluation.eps == 0.2


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere", "no such file"), (".", "not a finished run"), ("broken.safetensors", "can't be read")],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, path, message):
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(tmp_path / path, ATTACK)


def test_the_weights_of_a_run_follow_from_its_seed_alone(run, tmp_path):
    torch.manual_seed(12345)
    again = train(CONFIG, tmp_path)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_training_on_fewer_images_takes_them_evenly_from_the_classes():
    data = load_data(DataConfig(train_samples=100))
    assert torch.bincount(data.train.labels).tolist() == [10] * 10
    assert len(data.test) == 449
    with pytest.raises(InputError, match="train_samples=5000: digits has 1213 training images"):
        load_data(DataConfig(train_samples=5000))

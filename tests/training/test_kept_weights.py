"""A finished run keeps the weights of its best epoch, of its best epoch by clean accuracy, and of its last."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustmaps import fit
from robustmaps.attacks import PGD
from robustmaps.data import ImageSet
from robustmaps.defenses import AT
from robustmaps.engine.errors import InputError
from robustmaps.training import Interrupted, RunFolder, TrainOptions, kept_epochs, load_weights

ATTACK = PGD("linf", 0.1, steps=1)
OPTIONS = TrainOptions(epochs=6, lr=0.3, batch_size=16, schedule="constant", weight_decay=0, seed=3)
KEPT = {"best": 5, "best-clean": 3, "last": 6}
"""Of this run, whose accuracies lie far apart."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def train(data, folder, **rest):
    model = network()
    done = fit(model, data, AT(ATTACK), OPTIONS, validation_attack=ATTACK, out=folder, **rest)
    return model, done


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_dataset):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(make_dataset(validation=40), folder)
    return RunFolder(folder)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([(0.5, 0.4), (0.7, 0.3), (0.7, 0.2)], {"best": 1, "best-clean": 2, "last": 3}),
        ([(0.5, 0.4)], {"best": 1, "best-clean": 1, "last": 1}),
        ([None, None], {"best": 2, "last": 2}),
    ],
)
def test_the_epochs_that_are_kept(history, expected):
    names = ("validation_clean_accuracy", "validation_robust_accuracy")
    assert kept_epochs([{} if each is None else dict(zip(names, each, strict=True)) for each in history]) == expected


def test_each_file_has_the_weights_of_its_epoch(finished, make_dataset):
    history = finished.read_history()
    assert kept_epochs(history) == KEPT
    x, y = make_dataset(validation=40).validation.tensors()
    for which, epoch in KEPT.items():
        weights, description = load_weights(finished.weights(which))
        assert description["epoch"] == str(epoch)
        model = network()
        model.load_state_dict(weights)
        right = float((model(x).argmax(1) == y).float().mean())
        assert right == pytest.approx(history[epoch - 1]["validation_clean_accuracy"])


def test_the_last_are_those_of_a_run_without_validation(finished, make_dataset, tmp_path):
    data = make_dataset(validation=40)
    none = ImageSet(data.validation.images[:0], data.validation.labels[:0])
    blind = replace(data, validation=none)
    model, _ = train(blind, tmp_path / "blind")
    last, _ = load_weights(finished.weights("last"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())
    run = RunFolder(tmp_path / "blind")
    assert run.weights("last").read_bytes() == run.best.read_bytes()
    run.weights("last").unlink()  # as by earlier versions
    assert run.weights("last") == run.best
    with pytest.raises(InputError, match="no validation images"):
        RunFolder(tmp_path / "blind").weights("best-clean")


def test_an_unfinished_run_has_them_once_it_is_finished(finished, make_dataset, tmp_path):
    data, run, seen = make_dataset(validation=40), RunFolder(tmp_path / "run"), []
    with pytest.raises(Interrupted):
        train(data, run.path, watcher=lambda now: seen.append(now.phase), should_stop=lambda: "epoch 6/6" in seen)
    with pytest.raises(InputError, match=r"best-clean weights \(epoch 3\) are not there; .*--resume"):
        run.weights("best-clean")
    train(data, tmp_path / "run", resume=True)
    for which in KEPT:
        assert run.weights(which).read_bytes() == finished.weights(which).read_bytes()


def test_resuming_a_finished_run_writes_the_last_of_an_earlier_version(finished, make_dataset, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    written = run.weights("last").read_bytes()
    run.weights("last").unlink()
    with pytest.raises(InputError, match="last weights"):
        run.weights("last")
    train(make_dataset(validation=40), run.path, resume=True)
    assert run.weights("last").read_bytes() == written

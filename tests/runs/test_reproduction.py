"""A run made again equals the recorded one, and any difference is said."""

import json
import shutil

import pytest
import torch

from robustmaps.cli import main
from robustmaps.config import AttackConfig, DefenseConfig, RunConfig
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.runs import Options, evaluate_checkpoint, evaluate_curve, reproduce, train
from robustmaps.training import RunFolder, TrainOptions, load_weights
from robustmaps.training._weights import save_weights

CONFIG = RunConfig(
    defense=DefenseConfig(eps=0.1, steps=1),
    training=TrainOptions(epochs=2, batch_size=256, device="cpu", precision="fp32"),
)
ATTACK = AttackConfig(steps=2, restarts=2)
OPTIONS = Options(samples=60, device="cpu")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = train(CONFIG, tmp_path_factory.mktemp("runs")).folder
    evaluate_curve(folder, AttackConfig(steps=2, restarts=2, eps=(0.02, 0.05)), OPTIONS)
    evaluate_checkpoint(folder, AttackConfig("fgsm"), OPTIONS)
    return folder


@pytest.fixture(scope="module")
def again(recorded, tmp_path_factory):
    return reproduce(recorded, tmp_path_factory.mktemp("again"))


@pytest.fixture
def changed(recorded, again, tmp_path):
    """Copies of the recorded run and of the run made again, to be changed by a test."""
    shutil.copytree(again.folder.parent, tmp_path / "again")
    return shutil.copytree(recorded, tmp_path / "runs" / recorded.name), tmp_path / "again"


def test_a_run_is_the_same_bit_for_bit(again):
    assert again.identical
    assert "2 epochs, the weights, 180 verdicts of 3 evaluations" in again.sentence()
    assert not again.environment


def test_a_killed_reproduction_goes_on(recorded, again, changed):
    _, out = changed
    shutil.rmtree(next(out.iterdir()) / "evaluation")
    assert reproduce(recorded, out).to_dict() == {**again.to_dict(), "run": str(out / recorded.name)}


def test_a_copy_of_a_run_is_not_its_reproduction(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / recorded.name)
    with pytest.raises(InputError, match="was not made by reproduce; choose another --out"):
        reproduce(recorded, tmp_path)
    assert not RunFolder(tmp_path / recorded.name).reproduction.exists()


def test_other_weights_and_figures_are_found(changed):
    run, out = changed
    history = RunFolder(run).read_history()
    history[1]["train_loss"] += 1e-6
    RunFolder(run).write_history(history)
    done = reproduce(run, out)
    assert (done.identical, done.first_difference) == (False, 2)
    assert "the figures differ from epoch 2 on" in done.sentence()


def test_the_command_compares_the_first_epochs(recorded, tmp_path, capsys):
    threads = torch.get_num_threads()
    arguments = ["reproduce", str(recorded), "--epochs", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["identical"], said["epochs"], said["evaluations"]) == (True, 1, [])
    assert torch.get_num_threads() == threads


def test_the_command_fails_where_a_verdict_differs(changed, capsys):
    run, out = changed
    path = next((run / "evaluation").glob("fgsm*[0-9a-f].json"))
    evaluation = Evaluation.load(path)
    other = ["robust" if verdict == "fgsm" else verdict for verdict in evaluation.verdicts]
    assert other != list(evaluation.verdicts)
    without: dict[str, tuple[object, ...]] = {
        name: tuple(None if verdict == "robust" else each for verdict, each in zip(other, values, strict=True))
        for name, values in (("distances", evaluation.distances), ("perturbations", evaluation.perturbations))
    }
    Evaluation(**{**vars(evaluation), "verdicts": tuple(other), **without}).save(path)
    assert main(["reproduce", str(run), "--out", str(out)]) == 1
    written = capsys.readouterr()
    assert "Not the same" in written.out
    assert "points [" in written.out
    assert "was not reproduced" in written.err


@pytest.mark.parametrize(("epochs", "message"), [(0, "epochs=0: expected a number from 1 to 2"), (3, "from 1 to 2")])
def test_epochs_out_of_range(recorded, tmp_path, epochs, message):
    with pytest.raises(InputError, match=message):
        reproduce(recorded, tmp_path, epochs=epochs)


def test_the_recorded_run_is_not_touched(recorded):
    with pytest.raises(InputError, match="choose another one"):
        reproduce(recorded, recorded.parent)


def test_other_weights_are_found(changed):
    run, out = changed
    weights, description = load_weights(run / "best.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] = weights[name] + 1.0
    save_weights(run / "best.safetensors", weights, description)
    with pytest.warns(UserWarning, match="weights that are no longer in the run"):
        done = reproduce(run, out)
    assert done.largest_weight_difference == pytest.approx(1.0)
    assert "weights differ by up to 1" in done.sentence()
    assert not done.identical


def test_an_evaluation_whose_images_are_gone_is_said(changed):
    run, out = changed
    path = next((run / "evaluation").glob("fgsm*[0-9a-f].json"))
    Evaluation(**{**vars(Evaluation.load(path)), "images_sha256": "0" * 64}).save(path)
    done = reproduce(run, out)
    assert "its images are not those that the data set has now" in done.sentence()
    assert not done.identical

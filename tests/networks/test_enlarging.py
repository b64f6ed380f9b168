"""Enlarged networks whose statistics are measured again: nothing else changes, and they are those of the images."""

import pytest
import torch

from robustmaps import TrainOptions
from robustmaps.config import AttackConfig, DataConfig, DefenseConfig, ModelConfig, RunConfig, Surgery
from robustmaps.engine.errors import InputError
from robustmaps.networks import choose_images, enlarge_network, load_data, open_checkpoint, save_enlarged
from robustmaps.runs import Options, evaluate_checkpoint, train

LARGER = Surgery(where="0,1", smooth="blur")
pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = TrainOptions(epochs=3, batch_size=128, schedule="one-cycle", device="cpu", precision="fp32")
    config = RunConfig(ModelConfig(), DataConfig(), DefenseConfig(defense="standard"), options)
    return str(train(config, tmp_path_factory.mktemp("runs")).folder)


def test_statistics_are_those_of_the_training_images(run, tmp_path):
    before, after = (enlarge_network(run, LARGER, recalibrate=again, latency_runs=0) for again in (False, True))
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    checkpoint = open_checkpoint(run)
    data = load_data(checkpoint.data)
    images, _ = choose_images(data, "train", len(data.train))
    assert after.recalibrated_on == len(images)
    assert f"on {len(images):,} training images" in str(after)
    assert "measured again" not in str(before)
    # The first norm sees what the stem makes of the images, whatever the batches.
    inputs = []
    name, norm = next((n, m) for n, m in after.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.register_forward_hook(lambda module, given, result: inputs.append(given[0]))
    after.model.eval()(images)
    batches = torch.split(inputs[0], 128)
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(norm.running_mean, mean, atol=1e-5), name
    # What is said of the accuracy holds for the saved network.
    assert after.enlargement.after.accuracy > before.enlargement.after.accuracy
    weights, _ = save_enlarged(after, tmp_path / "larger")
    x, y = choose_images(data, "test", 512 if len(data.test) > 512 else None)
    again = open_checkpoint(weights).model.eval()
    assert (again(x).argmax(1) == y).float().mean().item() == pytest.approx(after.enlargement.after.accuracy)


def test_what_has_no_statistics_is_refused(run):
    with pytest.raises(InputError, match="recalibrate: measures on training images; give data"):
        enlarge_network("resnet8", LARGER, recalibrate=True)
    with pytest.raises(InputError, match="recalibrate: the network has random weights; train it"):
        enlarge_network("resnet8", LARGER, data="digits", recalibrate=True)


def test_a_trained_network_takes_images_with_more_pixels(run, tmp_path):
    done = enlarge_network(run, Surgery(), image_size=12, recalibrate=True, latency_runs=0)
    assert done.enlargement.larger_images == (12, 12)
    assert "images of 8x8: takes images of 12x12 instead" in str(done)
    assert done.enlargement.after.cost.flops > 2 * done.enlargement.before.cost.flops
    assert done.enlargement.before.cost.parameters == done.enlargement.after.cost.parameters
    old, new = open_checkpoint(run).model.state_dict(), done.model.state_dict()
    weights = [name for name in old if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(old[name], new[name]) for name in weights)
    assert any(not torch.equal(old[name], new[name]) for name in old)
    # The saved one is a network for these images, and says so to all that open it.
    save_enlarged(done, tmp_path / "larger")
    opened = open_checkpoint(tmp_path / "larger")
    assert opened.data.image_size == 12
    evaluated = evaluate_checkpoint(opened, AttackConfig("fgsm"), Options(samples=40, device="cpu"))
    x, y = choose_images(load_data(opened.data), "test", 40)
    right = (done.model.eval()(x).argmax(1) == y).float().mean().item()
    assert evaluated.evaluation.clean_accuracy.value == pytest.approx(right)
    with pytest.raises(InputError, match=r"images of 8 x 8 pixels; .* was trained on 12 x 12"):
        evaluate_checkpoint(opened, AttackConfig("fgsm"), Options(samples=40, device="cpu", image_size=8))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("run", {"image_size": 6}, "images of 6x6 instead of 8x8: expected larger ones"),
        ("run", {}, "nothing to do"),
        ("run", {"image_size": 8}, "nothing to do"),
        ("resnet8", {"image_size": 16}, "image_size=16: the network has random weights; train it on such images"),
        ("resnet8", {}, "nothing to do"),
    ],
)
def test_images_that_are_not_larger_are_refused(run, model, options, message):
    with pytest.raises(InputError, match=message):
        enlarge_network(run if model == "run" else model, Surgery(), latency_runs=0, **options)


def test_channels_count_where_no_images_are_named():
    def parameters(channels):
        done = enlarge_network("resnet8", Surgery(where="last"), channels=channels, latency_runs=0)
        return done.enlargement.before.cost.parameters

    assert parameters(3) - parameters(1) == 2 * 16 * 9  # weights of the first convolution
    assert parameters(None) == parameters(3)
    with pytest.raises(InputError, match="channels=7: expected 1 for grey images"):
        parameters(7)


def test_a_network_that_takes_no_blank_image_asks_for_its_images(tmp_path, monkeypatch):
    text = "from torch import nn\n\ndef grey():\n    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Flatten())\n"
    (tmp_path / "grey_network.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=r"can't take a blank image of 3x32x32 .*name its images \(data\), or what they"
    ):
        enlarge_network("grey_network:grey", Surgery(where="last"), latency_runs=0)

"""Enlarged networks whose statistics are measured again: nothing else changes, and they are those of the images."""

import pytest
import torch

from robustmaps import TrainOptions
from robustmaps.config import DataConfig, DefenseConfig, ModelConfig, RunConfig, Surgery
from robustmaps.engine.errors import InputError
from robustmaps.networks import choose_images, enlarge_network, load_data, open_checkpoint, save_enlarged
from robustmaps.runs import train

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

"""Steps that average their maps down to the size they had: pools and blurs in place of strides."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.cli import main
from robustmaps.config import parse_surgery, read_run_config
from robustmaps.engine.errors import InputError
from robustmaps.enlarging import enlarge as enlarge_and_time
from robustmaps.enlarging import plan
from robustmaps.enlarging._replacements import Relaxed, Smoothed
from robustmaps.networks import open_checkpoint
from robustmaps.tracing._windows import Window
from tests.helpers.enlarge_networks import Branches, Functional, OptionA, SharedPool, SpaceToDepth, plain

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def enlarge(model: nn.Module, **how: object):
    return enlarge_and_time(model.eval(), IMAGES, latency_runs=0, **how)


def blurred(x: Tensor) -> Tensor:
    """1 2 1 on both axes, then every second value, by hand."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return ((x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4)[:, :, ::2, ::2]


class Residual(nn.Module):
    """A strided block with a shortcut, and how it is smoothed if written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 12, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.shortcut = nn.Conv2d(8, 12, 1, 2)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.linear((self.norm(self.conv(x)) + self.shortcut(x)).relu().mean((2, 3)))

    def by_hand(self, x: Tensor, down) -> Tensor:
        x = self.stem(x).relu()
        path = self.norm(down(F.conv2d(x, self.conv.weight, None, 1, 1)))
        across = down(F.conv2d(x, self.shortcut.weight, self.shortcut.bias))
        return self.linear((path + across).relu().mean((2, 3)))


@pytest.mark.parametrize(("smooth", "down"), [("average", lambda x: F.avg_pool2d(x, 2)), ("blur", blurred)])
def test_all_branches_of_a_step_are_averaged(smooth, down):
    network = Residual().eval()
    larger, done = enlarge(network, where="last", smooth=smooth)
    assert torch.allclose(larger(IMAGES), network.by_hand(IMAGES, down), atol=1e-6)
    assert not torch.allclose(larger(IMAGES), network(IMAGES), atol=1e-4)
    assert done.before.cost.map_size == done.after.cost.map_size == (16, 16)
    assert done.after.cost.flops > done.before.cost.flops
    assert done.after.field_px is not None
    assert done.after.field_px > done.before.field_px
    assert done.recipe == {"factor": 2, "where": [0], "dilate": False, "smooth": smooth}
    assert {"average": "averaged", "blur": "blurred"}[smooth] in str(done)
    for again in (copy.deepcopy(larger), pickle.loads(pickle.dumps(larger))):
        assert torch.equal(again(IMAGES), larger(IMAGES))
    again, _ = enlarge(network, **done.recipe)
    assert torch.equal(again(IMAGES), larger(IMAGES))


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
@pytest.mark.parametrize("make", [Branches, Functional, OptionA, SharedPool, SpaceToDepth, plain])
@pytest.mark.parametrize("smooth", ["average", "blur"])
def test_steps_of_every_kind_keep_the_size_of_their_maps(make, smooth):
    network = make()
    _, known = enlarge(network, upsample=2)
    for step in known.steps:
        larger, done = enlarge(network, where=step.index, smooth=smooth)
        assert done.after.cost.map_size == done.before.cost.map_size
        assert done.after.effective_stride == done.before.effective_stride
        assert torch.isfinite(larger(IMAGES)).all()
    both, done = enlarge(network, upsample=2, where=0, smooth=smooth)
    assert done.after.cost.map_size == known.after.cost.map_size
    assert both(IMAGES).shape == network(IMAGES).shape


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_sizes_are_those_of_the_window(data: st.DataObject) -> None:
    kernel, factor = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 3))
    stride, padding = factor * data.draw(st.integers(1, 2)), data.draw(st.integers(0, kernel // 2))
    height, width = data.draw(st.integers(6, 14)), data.draw(st.integers(6, 14))
    keeps = data.draw(st.booleans())
    window = Window((kernel, kernel), (stride, stride), (padding, padding), (padding, padding))
    x, weight = torch.randn(1, 3, height, width), torch.randn(4, 3, kernel, kernel)
    old = F.conv2d(x, weight, None, stride, padding)
    assume(not keeps or old.shape[2:] == (-(-height // stride), -(-width // stride)))
    for by in ("average", "blur"):
        new = Smoothed(Relaxed(window, (factor, factor), keep_size=keeps), by)(F.conv2d, (x, weight), {})
        assert new.shape == old.shape
        ones = Smoothed(Relaxed(window, (factor, factor)), by)(F.conv2d, (torch.ones_like(x), weight), {})
        if not padding:  # constant maps are not changed
            assert torch.allclose(ones, F.conv2d(torch.ones_like(x), weight, None, stride), atol=1e-4)


def test_what_contradicts_smoothing_is_refused():
    network = Residual()
    with pytest.raises(InputError, match=r"smooth='average' without a step to smooth: set where"):
        enlarge(network, upsample=2, smooth="average")
    with pytest.raises(InputError, match=r"smooth='blur' with dilate=True"):
        enlarge(network, where="last", dilate=True, smooth="blur")
    with pytest.raises(InputError, match=r"smooth with dilate|smooth='blur' with dilate=True"):
        plan(network, IMAGES, dilate=True, smooth="blur")
    with pytest.raises(InputError, match=r"unknown smooth 'blurr'.*blur"):
        enlarge(network, where="last", smooth="blurr")
    with pytest.raises(InputError, match=r"unknown smooth 'blurr'"):
        parse_surgery("last,smooth=blurr")


def test_a_step_is_named_with_its_smoothing():
    assert parse_surgery("last,blur") == parse_surgery("where=last,smooth=blur")
    assert str(parse_surgery("0,1,average")) == "where=0,1,smooth=average"


def test_a_plan_measures_the_gain_of_smoothing():
    found = plan(
        Residual().eval(), IMAGES, budget=8, upsamples=(1,), smooth="average", gain=lambda net: net(IMAGES).std().item()
    )
    assert [option.where for option in found.options] == [(), (0,)]
    assert len({option.cost.map_size for option in found.options}) == 1
    assert found.to_dict()["smooth"] == "average"


def test_a_smoothed_network_is_trained_saved_and_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = "--train-samples 64 --batch-size 32 --epochs 1 --defense standard --device cpu --precision fp32"
    assert main(f"train --model resnet8 --enlarge last,blur {few}".split()) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert read_run_config(run / "config.yaml").model.enlarge == "where=last,smooth=blur"
    network = open_checkpoint(run).model
    plain_network, _ = enlarge_and_time(network, torch.rand(1, 1, 8, 8), where=0, smooth="average", latency_runs=0)
    assert "blurred by (2, 2)" in str(network)
    assert "averaged by (2, 2)" in str(plain_network)
    assert main(["evaluate", str(run), "--attack", "fgsm", "--samples", "16"]) == 0
    assert main(["enlarge", str(run), "--where", "0", "--smooth", "average", "--save", "smoothed"]) == 0
    assert main(["export", str(run), "--format", "safetensors", "--out", "exported"]) == 0
    assert "then blurred" in (tmp_path / "exported" / "README.md").read_text()
    capsys.readouterr()
    assert main(["plan", "smoothed", "--smooth", "blur", "--gain", "none"]) == 0
    assert "1,0" not in capsys.readouterr().out

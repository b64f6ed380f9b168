"""Networks with other numbers of channels, as part of their names."""

import re

import pytest
import torch
from torch import nn

from robustmaps import load, models
from robustmaps.cli import main
from robustmaps.engine.errors import InputError


def channels(name):
    """The output channels of every convolution, in order."""
    with torch.device("meta"):
        network = models.create(name)
    return [module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("factor", [0.5, 2])
@pytest.mark.parametrize("name", [name for name in models.names() if models.is_built_in(name)])
def test_one_factor_changes_every_convolution(name, factor):
    wide = channels(f"{name}_w{factor:g}")
    assert wide == [factor * width for width in channels(name)]


def test_factors_of_groups():
    body = models.create("resnet8_w2-1-0.5").body
    groups = [group for name, group in body.features.named_children() if name != "stem"]
    assert [group[0].path[0].out_channels for group in groups] == [32, 32, 32]
    assert body.features.stem[0].out_channels == 32
    assert body.head.in_features == 32
    assert models.create("vgg11_bn_w0.5").eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert models.create("alexnet_w1-1-1-1-0.5", upsample=2).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "factors", "expected"),
    [
        ("resnet8", (2, 2, 2), "resnet8_w2"),
        ("resnet8_w2", (1, 1, 0.5), "resnet8_w2-2-1"),
        ("resnet8_w2", (0.5, 0.5, 0.5), "resnet8"),
    ],
)
def test_widening_gives_one_name_to_one_network(name, factors, expected):
    assert models.widened(name, factors) == expected
    assert models.title_of(expected).startswith("ResNet-8")
    assert models.is_built_in(expected)
    assert models.default_strides(expected) == models.default_strides("resnet8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet8_w0.3", "resnet8_w0.3: 16 channels times 0.3 are 4.8; expected a whole number"),
        ("resnet8_w0", "at most 64, such as resnet8_w0.5 or resnet8_w1-1-0.5"),
        ("resnet8_w65", "at most 64"),
        ("resnet8_w1-2", "expected one factor of its channels, or 3"),
        ("resnet8_w1", "this network is called resnet8; write that"),
        ("resnet8_w0.50", "this network is called resnet8_w0.5; write that"),
        ("resnet8_w2-2-2", "this network is called resnet8_w2; write that"),
        ("resnet8_w1..2", "resnet8_w1..2: width"),
        ("resnet9_w2", "unknown model 'resnet9_w2'; did you mean 'resnet"),
        ("resnext50_32x4d_w0.125", "divisible by groups"),
    ],
)
def test_widths_that_no_network_has_are_refused(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        models.create(name)


def test_a_network_of_other_programs_without_widths(monkeypatch):
    row = models.Architecture("fixed_widths", "Fixed", models.Strides((1,)), "one", lambda *_: nn.Flatten())
    monkeypatch.setattr(models._registry._REGISTRY, "_registered", {row.name: row})
    with pytest.raises(InputError, match="the widths of fixed_widths can't be changed"):
        models.create("fixed_widths_w2")


def test_runs_and_enlargements_know_the_name(tmp_path, capsys):
    short = [
        "--data",
        "digits",
        "--epochs",
        "1",
        "--defense",
        "standard",
        "--train-samples",
        "64",
        "--batch-size",
        "32",
    ]
    assert main(["train", "resnet8_w0.5", *short, "--out", str(tmp_path)]) == 0
    (run,) = map(str, tmp_path.iterdir())
    assert load(run).network.body.head.in_features == 32
    assert main(["analyze", run, "--samples", "8"]) == 0
    assert "ResNet-8 w0.5" in capsys.readouterr().out
    assert main(["enlarge", run, "--where", "last", "--save", str(tmp_path / "larger")]) == 0
    assert load(tmp_path / "larger")(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_valid_factor_with_many_digits_keeps_its_name():
    assert channels("resnet18_w1.015625")[0] == 65

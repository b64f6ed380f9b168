"""What networks and runs are called, whatever a user gives for them."""

from dataclasses import replace

import pytest

from robustmaps import defenses, models
from robustmaps.config import ModelConfig, write_config
from robustmaps.networks import name_configurations, name_given, name_network, name_runs
from tests.helpers.studies import configuration


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ModelConfig("resnet20", upsample=2.0), "ResNet-20 ×2"),
        (ModelConfig("resnet20", strides="122"), "ResNet-20"),
        (ModelConfig("resnet18", strides="1122", upsample=1.5, upsample_mode="area"), "ResNet-18 1122 ×1.5 area"),
        (ModelConfig("wrn34_10", enlarge="last,dilate"), "Wide ResNet-34-10, last step, dilated"),
        (
            ModelConfig("vgg11_bn", enlarge="upsample=2,0,1,factor=4,blur"),
            "VGG-11 bn ×2, steps 0+1, strides ÷4, smoothed (blur)",
        ),
        (ModelConfig("timm:resnet18", enlarge="upsample=2"), "timm:resnet18 ×2"),
        (ModelConfig("resnet20", upsample=2.0, enlarge_at="0.8"), "ResNet-20 ×2, after 80 % of the epochs"),
        (ModelConfig("resnet20", enlarge="silu"), "ResNet-20 SiLU"),
        (ModelConfig("timm:resnet18", enlarge="upsample=2,0,silu"), "timm:resnet18 ×2 SiLU, step 0"),
        (
            ModelConfig("resnet20", upsample=4.0, enlarge_at="0.5,0.8"),
            "ResNet-20 ×4, in steps after 50 and 80 % of the epochs",
        ),
        (ModelConfig("/some/where/net.pt2"), "net.pt2"),
        (ModelConfig("mine:network"), "mine:network"),
    ],
)
def test_networks(model, name):
    assert name_network(model) == name


def test_every_network_and_defence_of_ours_has_a_name_of_its_own():
    for title_of, names in ((models.title_of, models.names()), (defenses.title_of, defenses.listed())):
        assert len({title_of(name) for name in names}) == len(list(names))
    assert defenses.title_of("trades-awp") == "TRADES-AWP"
    assert defenses.title_of("unknown") == "unknown"


def test_runs_have_their_seeds_where_there_are_several():
    one, two = configuration(1, 0), configuration(2, 0)
    assert name_runs([one, two]) == name_configurations([one, two]) == ["ResNet-8", "ResNet-8 ×2"]
    assert name_runs([one, replace(one, training=replace(one.training, seed=3))]) == [
        "ResNet-8 · seed 0",
        "ResNet-8 · seed 3",
    ]
    assert name_runs([]) == []


def test_a_run_is_called_by_its_configuration(tmp_path, monkeypatch):
    (tmp_path / "best.safetensors").touch()
    (tmp_path / "config.yaml").write_text(write_config(configuration(2, model="resnet20")))
    assert name_given(str(tmp_path)) == name_given(str(tmp_path / "best.safetensors")) == "ResNet-20 ×2"
    monkeypatch.chdir(tmp_path)
    assert name_given("resnet8") == "ResNet-8"  # wherever it is called

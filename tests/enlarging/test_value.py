"""The `Enlargement`: frozen, a table, JSON, and a recipe that repeats it."""

import dataclasses
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from robustmaps import models
from robustmaps.enlarging import Enlargement, enlarge

pytestmark = pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")

IMAGES = torch.rand(2, 3, 32, 32)


@pytest.fixture(scope="module")
def enlargement() -> Enlargement:
    how = {"upsample": 2, "factor": 2, "where": [1], "dilate": True, "labels": torch.tensor([0, 1]), "latency_runs": 2}
    return enlarge(models.create("resnet8"), IMAGES, **how)[1]


def test_it_is_frozen(enlargement: Enlargement) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        enlargement.factor = 3
    assert hash(enlargement) == hash(dataclasses.replace(enlargement))


def test_it_prints_as_a_table(enlargement: Enlargement) -> None:
    lines = str(enlargement).splitlines()
    assert lines[0] == (
        "Network, images of 32x32: images upsampled by 2 (nearest); strides of step 1 divided by 2, dilated"
    )
    assert lines[2].split() == ["step", "stride", "map", "change", "made", "by"]
    assert lines[4] == "1     2       16x16 to 8x8    relaxed  body.features.group3.0.path.0: conv2d (+1)"
    assert "map before the final pooling  8x8       32x32" in "\n".join(lines)
    assert "effective stride              4         1" in "\n".join(lines)
    assert any(line.startswith("latency (ms)") for line in lines)
    assert any(line.startswith("clean accuracy") for line in lines)


def test_it_goes_to_json(enlargement: Enlargement) -> None:
    value = json.loads(json.dumps(enlargement.to_dict()))
    assert value == enlargement.to_dict()
    assert value["recipe"] == {
        "upsample": 2,
        "upsample_mode": "nearest",
        "factor": 2,
        "where": [1],
        "dilate": True,
    }
    assert [step["relaxed"] for step in value["steps"]] == [False, True]
    assert value["after"]["cost"]["map_size"] == [32, 32]
    assert value["after"]["accuracy"] is not None


def test_its_recipe_repeats_it(enlargement: Enlargement) -> None:
    again = enlarge(models.create("resnet8"), IMAGES, latency_runs=0, **enlargement.recipe)[1]
    assert again.steps == enlargement.steps
    assert again.after.cost.flops == enlargement.after.cost.flops


def test_its_costs_are_those_of_the_networks() -> None:
    network = models.create("resnet8").eval()
    larger, enlargement = enlarge(network, IMAGES, factor=2, where="last", latency_runs=0)
    for model, side in ((network, enlargement.before), (larger, enlargement.after)):
        with FlopCounterMode(display=False) as counter:
            model(IMAGES[:1])
        assert side.cost.flops == counter.get_total_flops()
        assert side.cost == dataclasses.replace(models.measure_cost(model, IMAGES), map_size=side.cost.map_size)
    assert enlargement.before.cost.parameters == enlargement.after.cost.parameters

"""Headers of weights files that describe what nobody has."""

import json

import pytest

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.networks import open_checkpoint
from robustmaps.training import save_weights

MODEL = {"name": "resnet8", "num_classes": 10, "in_channels": 1}
ABOUT = {"model": MODEL, "enlarge": [], "trained": True, "data": None, "norm": "linf", "eps": 0.1}


def test_a_header_of_odd_values_is_an_error_that_takes_no_memory(tmp_path):
    path = tmp_path / "w.safetensors"
    weights = models.create("resnet8", num_classes=10, in_channels=1).state_dict()
    save_weights(path, weights, {"robustmaps": json.dumps(ABOUT)})
    assert open_checkpoint(path).eps == 0.1
    odd = [[], "x", None, {**ABOUT, "model": []}, {**ABOUT, "enlarge": 3}, {**ABOUT, "eps": []}, {**ABOUT, "data": [1]}]
    odd += [{**ABOUT, "enlarge": [{"image_size": [10**6, 10**6], "upsample": 2}]}]
    for key, value in (("num_classes", 10**9), ("in_channels", 10**9), ("num_classes", -1), ("mean", "x"), ("a", 1)):
        odd.append({**ABOUT, "model": {**MODEL, key: value}})
    for about in (*map(json.dumps, odd), "[" * 10**5, '{"model": 1, "model": 2}', "NaN"):
        save_weights(path, weights, {"robustmaps": about})
        with pytest.raises(InputError):
            open_checkpoint(path)

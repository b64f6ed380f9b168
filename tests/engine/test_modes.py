"""Modes come back module by module."""

import pytest
from torch import nn

from robustmaps.engine.modes import modes_restored


def test_a_frozen_batch_norm_stays_frozen_after_an_exception():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train()
    model[1].eval()

    def train_and_fail() -> None:
        with modes_restored(model):
            model.train()
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        train_and_fail()
    assert [module.training for module in model.modules()] == [True, True, False]

"""Plots of analyses, plans and the theory."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps import models
from robustmaps.analysis import BASIC, POOLS, Toy, Variation, analyze, laboratory
from robustmaps.enlarging import plan
from robustmaps.figures import AttackedImage, AttackedMaps, plot_gains, plot_maps, plot_plan, plot_theory

X = torch.rand(2, 3, 16, 16)


def check(path):
    with Image.open(path) as picture:
        assert min(picture.size) > 300
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize(("images", "steps"), [(2, 1), (2, 0), (1, 0)])
def test_gains(tmp_path, images, steps):
    found = analyze(models.create("resnet8"), X[:images], torch.zeros(images, dtype=torch.int64), steps=steps)
    plot_gains(tmp_path / "gain.png", {"one": found, "other": found}, "title")
    check(tmp_path / "gain.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_maps(tmp_path, channels):
    image = np.random.default_rng(0).random((channels, 8, 8), dtype=np.float32)
    shown = AttackedImage(image, image, ("cat", "dog"), "cat")
    maps = (np.ones((4, 8, 8), np.float32), np.zeros((4, 4, 4), np.float32))
    two = AttackedMaps(shown, 0.1, ("a", "b"), maps, (maps[0] * 2, maps[1]))
    one = AttackedMaps(shown, 0.1, ("a",), maps[:1], maps[:1])
    plot_maps(tmp_path / "maps.png", {"two": two, "one": one}, "title")
    check(tmp_path / "maps.png")


def test_theory(tmp_path):
    variations = [Variation(BASIC, (Toy(pool=pool, stride=2), Toy(pool=pool))) for pool in POOLS]
    plot_theory(tmp_path / "theory.png", laboratory(variations, draws=2, steps=1))
    check(tmp_path / "theory.png")


def test_plans(tmp_path):
    found = plan(models.create("resnet8"), X[:1], budget=4, gain=lambda _: 1.0)
    plot_plan(tmp_path / "plan.png", found, "title", "gain")
    check(tmp_path / "plan.png")

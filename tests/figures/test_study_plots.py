"""Figures of studies are written as pictures, whatever the names, and replace only their own."""

import numpy as np
import pytest
from PIL import Image

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.figures import plot_lines, plot_planes

NAMES = ("resnet8 122", "$x^2", "<b> & \\frac", "_hidden", *(f"line {number}" for number in range(6)))


def lines():
    return {name: [(0.0, Measured(0.9, 0.8, 1.0)), (0.1 * n, Measured(0.5, 0.4, 0.6))] for n, name in enumerate(NAMES)}


def planes():
    points = np.random.default_rng(0).normal(size=(2, 12, 2))
    labels = np.arange(12) % 3
    projections = {"principal components": points, "t-SNE": 40 * points}
    return dict.fromkeys(NAMES[:2], projections), dict.fromkeys(NAMES[:2], labels), {0: "cat", 1: "$dog", 2: "_owl"}


def draw(kind, path):
    if kind == "lines":
        plot_lines(path, lines(), "eps", "accuracy", {0.0: "0", 0.1: "0.1"})
    else:
        plot_planes(path, *planes(), "features")


@pytest.mark.parametrize("kind", ["lines", "planes"])
def test_it_is_a_picture_that_replaces_only_its_own(kind, tmp_path):
    path = tmp_path / "figure.png"
    draw(kind, path)
    before = path.read_bytes()
    draw(kind, path)
    assert path.read_bytes() == before
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 400
    assert (pixels != 255).any(2).mean() > 0.01
    path.write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        draw(kind, path)

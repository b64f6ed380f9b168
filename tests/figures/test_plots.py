"""Tables and plots."""

import numpy as np
import pytest
from PIL import Image

from robustmaps.engine.tables import table
from robustmaps.figures import AttackedImage, plot_attacked, plot_curves


def test_markdown_table():
    assert table(("a", "b"), [(1, "x|y")]).to_markdown() == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"


def test_a_short_row_is_refused():
    with pytest.raises(ValueError, match=r"row of 1 cells .*: expected 2"):
        table(("a", "b"), [("only",)])


def test_curves_show_what_there_is(tmp_path):
    runs = [[{"epoch": e, "validation_clean_accuracy": 0.1 * e} for e in range(1, 4)] for _ in range(2)]
    plot_curves(tmp_path / "curves.png", {"<one>": runs, "none": [[]]}, "title")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 500


@pytest.mark.parametrize("channels", [1, 3])
def test_attacked_images_of_any_channels(tmp_path, channels):
    image = np.full((channels, 8, 8), 0.5, dtype=np.float32)
    shown = AttackedImage(image, image + 0.1, ("cat", "dog"), "cat")
    plot_attacked(tmp_path / "attacked.png", {"net": [shown, shown]}, 0.1, "title")
    with Image.open(tmp_path / "attacked.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 0

"""Grey images as colour ones, and the other way round."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps.data import REPEATED, TURNED_GREY, load
from robustmaps.engine.errors import InputError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Colours, with a grey image among them."""
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            image = image.convert("L") if number == 3 else image
            image.save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path / "set"


def test_colours_turn_grey_as_pillow_does_it(pictures: Path) -> None:
    data = load(pictures, channels=1, validation=0)
    assert data.in_channels == 1
    assert TURNED_GREY in data.notes
    assert not any("three channels" in note for note in data.notes)
    expected = {np.asarray(Image.open(path).convert("L")).tobytes() for path in pictures.rglob("*.png")}
    found = torch.cat([data.train.images, data.test.images])
    assert {image.numpy().tobytes() for image in found} == expected


def test_grey_is_repeated_and_not_mirrored() -> None:
    plain, data = load("digits"), load("digits", channels=3)
    assert torch.equal(data.train.images, plain.train.images.expand(-1, 3, -1, -1))
    assert data.augmentation == plain.augmentation
    assert (data.mean, REPEATED in data.notes, REPEATED in plain.notes) == (plain.mean * 3, True, False)


def test_greys_among_colours_are_counted(pictures: Path) -> None:
    notes = load(pictures, validation=0).notes
    assert any(note.startswith("grey, repeated over three channels as others are in colour: 2 (") for note in notes)


def test_each_number_of_channels_is_cached_by_itself(pictures: Path) -> None:
    first = [load(pictures, channels=channels, validation=0) for channels in (None, 1, 3)]
    again = [load(pictures, channels=channels, validation=0) for channels in (None, 1, 3)]
    assert [data.in_channels for data in first] == [3, 1, 3]
    assert [data.fingerprint for data in first] == [data.fingerprint for data in again]
    assert first[0].fingerprint == first[2].fingerprint


@pytest.mark.parametrize("channels", [0, 2, 4, True])
def test_other_numbers_are_refused(channels: int) -> None:
    with pytest.raises(InputError, match=f"channels={channels}: expected 1 for grey images, or 3"):
        load("digits", channels=channels)

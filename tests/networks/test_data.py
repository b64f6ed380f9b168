"""The images that a configuration names."""

import numpy as np
import pytest

from robustmaps.config import DataConfig
from robustmaps.data import KNOWN, load
from robustmaps.engine.progress import Progress
from robustmaps.networks import load_data


def test_a_watcher_is_told_of_the_first_decoding_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    images, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "images.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    config = DataConfig(str(tmp_path / "images.npz"))
    first: list[Progress] = []
    again: list[Progress] = []
    load_data(config, first.append)
    load_data(config, again.append)
    assert first == [Progress("decoding images", 20, 20, "images")] * 2
    assert not again


@pytest.mark.parametrize("name", KNOWN)
def test_published_augmentation_is_none_where_the_publication_has_none(name, monkeypatch):
    digits = load("digits")
    assert str(digits.augmentation) == "shifted by up to 1 px"
    monkeypatch.setattr("robustmaps.networks._data.load", lambda *_, **__: digits)  # the others need a download
    plain = name in ("svhn", "mnist", "fashion_mnist")
    used = str(load_data(DataConfig(name, augment="published")).augmentation)
    assert used == ("used as they are" if plain else "shifted by up to 1 px")
    assert load_data(DataConfig(name)).augmentation == digits.augmentation
    assert str(load_data(DataConfig(name, augment="none")).augmentation) == "used as they are"

"""Folders in the form of CIFAR-10-C."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustmaps.data import open_corruptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two corruptions of six images, 4 x 5; every pixel holds the number of its image and severity."""
    path = tmp_path / "c"
    path.mkdir()
    numbers = np.arange(30, dtype=np.uint8)[:, None, None, None]
    np.save(path / "fog.npy", np.broadcast_to(numbers, (30, 4, 5, 3)))
    np.save(path / "blur.npy", np.broadcast_to(numbers + 100, (30, 4, 5, 3)))
    np.save(path / "labels.npy", np.tile([0, 1, 2, 0, 1, 2], 5))
    return path


def test_severities_come_one_after_the_other(folder: Path) -> None:
    corrupted = open_corruptions(folder)
    assert (corrupted.names, corrupted.shape, corrupted.labels.tolist()) == (
        ("blur", "fog"),
        (3, 4, 5),
        [0, 1, 2, 0, 1, 2],
    )
    images = corrupted.images("fog")
    assert images.shape == (5, 6, 3, 4, 5)
    assert images[:, :, 2, 3, 4].tolist() == np.arange(30).reshape(5, 6).tolist()


def test_labels_once_for_all_severities_and_grey_images(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8))
    for name in ("fog", "blur"):
        np.save(folder / f"{name}.npy", np.zeros((30, 4, 5), np.uint8))
    corrupted = open_corruptions(folder)
    assert corrupted.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert corrupted.images("fog").shape == (5, 6, 1, 4, 5)


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    before = open_corruptions(folder).fingerprint()
    np.save(folder / "fog.npy", np.ones((30, 4, 5, 3), np.uint8))
    assert open_corruptions(folder).fingerprint() != before


def write(name: str, array: object) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, np.asarray(array))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "labels.npy").unlink(), r"missing labels\.npy, found 2 other \.npy files"),
        (lambda f: [p.unlink() for p in f.glob("[bf]*")], r"only labels\.npy; expected a \.npy file for each"),
        (write("fog.npy", np.zeros((31, 4, 5, 3), np.uint8)), r"fog\.npy: shape \(31, 4, 5, 3\); expected \(5 \* N"),
        (write("fog.npy", np.zeros((30, 3, 4, 5), np.uint8)), r"fog\.npy: shape \(30, 3, 4, 5\); expected \(5 \* N"),
        (write("fog.npy", np.zeros((30, 60), np.uint8)), r"fog\.npy: shape \(30, 60\); expected"),
        (write("fog.npy", np.zeros((30, 4, 5, 3))), r"fog\.npy: type float64; expected uint8"),
        (write("fog.npy", np.zeros((35, 4, 5, 3), np.uint8)), r"fog\.npy: shape \(35, .*\(30, .* as in blur\.npy"),
        (write("labels.npy", np.zeros(29, int)), r"labels\.npy: 29 labels for 6 images"),
        (write("labels.npy", np.arange(30)), r"labels\.npy: labels differ between severities"),
        (write("labels.npy", np.zeros(30)), r"labels\.npy: labels of type float64"),
        (write("labels.npy", np.full(30, -1)), r"labels\.npy: label -1 out of range"),
        (write("labels.npy", np.array([{}] * 30)), r"labels\.npy: can't be read as a plain array"),
        (write("fog.npy", np.array([{}] * 30)), r"fog\.npy: can't be read as a plain array"),
        (lambda f: (f / "fog.npy").write_bytes(b"no array"), r"fog\.npy: can't be read as a plain array"),
        (lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:200]), r"fog\.npy: can't be read"),
    ],
)
def test_what_is_wrong_is_named(damage: Callable[[Path], object], message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message):
        open_corruptions(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no such folder; expected one with labels\.npy"):
        open_corruptions(tmp_path / "nowhere")

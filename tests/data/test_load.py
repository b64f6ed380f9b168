import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmaps.data import KNOWN, Augmentation, ResizedCrop, batches, describe, load, prepare
from robustmaps.data.source import Contents, Progress
from robustmaps.data.sources.arrays import array_blocks
from robustmaps.data.sources.hub import Hub


def keys(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_digits() -> None:
    data = load("digits")
    assert (data.name, data.num_classes, data.in_channels, data.image_size) == ("digits", 10, 1, (8, 8))
    assert (len(data.train), len(data.validation), len(data.test)) == (1213, 135, 449)
    assert int(data.train.images.max()) == 255
    assert data.augmentation == Augmentation(pad=1, flip=False)
    assert data.test.labels.bincount().min() >= 43


def test_digits_need_no_cache(cache_dir: Path) -> None:
    load("digits")
    assert not cache_dir.exists()


def test_the_test_split_never_leaks_into_training_of_any_seed() -> None:
    first = load("digits", seed=0)
    everything = keys(first.train.images) | keys(first.validation.images) | keys(first.test.images)
    for seed in (1, 2):
        data = load("digits", seed=seed)
        assert torch.equal(data.test.images, first.test.images)
        assert not keys(data.train.images) & keys(data.test.images)
        assert not keys(data.train.images) & keys(data.validation.images)
        assert keys(data.train.images) | keys(data.validation.images) | keys(data.test.images) == everything
        assert keys(data.validation.images) != keys(first.validation.images)
        assert (data.mean, data.std, data.fingerprint) == (first.mean, first.std, first.fingerprint)


def test_images_keep_their_labels_when_validation_is_cut() -> None:
    whole, cut = load("digits", validation=0), load("digits", validation=300)
    label = dict(zip((i.numpy().tobytes() for i in whole.train.images), whole.train.labels.tolist(), strict=True))
    assert len(cut.validation) == 300
    for split in (cut.train, cut.validation):
        assert all(label[i.numpy().tobytes()] == y for i, y in zip(split.images, split.labels.tolist(), strict=True))


def test_validation_zero_is_an_empty_set() -> None:
    data = load("digits", validation=0)
    assert len(data.validation) == 0
    assert data.validation.images.shape == (0, 1, 8, 8)


def test_describe_is_json() -> None:
    shown = json.loads(json.dumps(describe(load("digits")), allow_nan=False))
    assert shown["images"] == {"train": 1213, "validation": 135, "test": 449}
    assert sum(shown["classes"]["3"].values()) == 183
    assert shown["augmentation"] == {"pad": 1, "flip": False}


def test_the_table_of_known_sets_agrees_with_digits() -> None:
    data, known = load("digits", validation=0), KNOWN["digits"]
    assert (len(data.train), len(data.test), data.num_classes) == (known.train, known.test, known.classes)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar01", r"unknown data set 'cifar01'; did you mean 'cifar10'\? Choices: digits, cifar10,"),
        ("./missing", r"\./missing: no such file or folder"),
        ("missing.tar.xz", r"missing\.tar\.xz: no such file or folder"),
        (Path("missing"), r"missing: no such file or folder"),
        ("hf:nothing", r"hf:nothing: expected hf:owner/name"),
    ],
)
def test_unknown_specs(spec: str | Path, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(spec)


def test_a_file_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "data.rar").touch()
    with pytest.raises(ValueError, match=r"data\.rar: not a directory, nor a file of a known kind"):
        load(tmp_path / "data.rar")


def test_a_pipe_as_data_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"data\.npz: a pipe, socket or device; expected a folder, or a file"):
        load(tmp_path / "data.npz")


@pytest.mark.parametrize("size", [0, -4, 2.5, True])
def test_image_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match=r"image_size=.*: expected a whole number"):
        prepare("digits", image_size=size)


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int | None]] = []
    prepare("digits", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (1797, 1797)


def test_crops_are_cut_from_larger_images_and_tested_in_their_centre(write_images: Callable[..., Path]) -> None:
    folder = write_images({"train/a": 12, "train/b": 8, "test/a": 3, "test/b": 3}, size=(40, 50))
    data = load(folder, image_size=16, resized_crop=True, validation=4)
    larger = load(folder, image_size=18, validation=4)
    assert data.augmentation == ResizedCrop(16)
    assert data.image_size == (16, 16)
    assert data.train.images.shape == (16, 3, 18, 18)
    for split in ("validation", "test"):
        assert torch.equal(getattr(data, split).images, getattr(larger, split).images[:, :, 1:17, 1:17])
    x, _ = next(batches(data.train, 8, seed=0, epoch=0, augmentation=data.augmentation))
    assert x.shape == (8, 3, 16, 16)
    plain = data.without_augmentation()
    assert plain.augmentation == Augmentation()
    assert plain.train.images.shape == (16, 3, 16, 16)
    assert plain.image_size == (16, 16)
    assert (data.mean, data.std) == (larger.mean, larger.std)
    assert json.loads(json.dumps(describe(data)))["augmentation"]["resized_crop"] == 16
    with pytest.raises(ValueError, match=r"random resized crops need image_size .*, such as 128"):
        load(folder, resized_crop=True)


def test_the_centre_of_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match=r"centre\(9\): expected a size within the images, which are 8 x 8"):
        load("digits").test.centre(9)


# As in the published experiments (arXiv 2202.12435).
STATISTICS = {
    "cifar10": ((0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2617)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.5,) * 3, (0.5,) * 3),
    "tiny_imagenet": ((0.4601, 0.4330, 0.3732), (0.2647, 0.2481, 0.2594)),
    "imagenette": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.0,), (1.0,)),
    "fashion_mnist": ((0.0,), (1.0,)),
}
MIRRORED = {"cifar10", "cifar100", "tiny_imagenet", "imagenette"}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_named_set_comes_with_its_published_statistics_and_augmentation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub would send is replaced by a few random images of the set's kind."""
    known = KNOWN[name]
    height, width = (200, 160) if known.size == "varies" else map(int, known.size.split(" x "))
    rng = np.random.default_rng(0)

    def read(self: Hub, image_size: int | None, progress: Progress | None) -> Contents:
        images = rng.integers(0, 256, (8, known.channels, height, width), dtype=np.uint8)
        classes = ("a", "b")
        blocks = [
            block
            for split in ("train", "test")
            for block in array_blocks(split, images, np.arange(8) % 2, classes, image_size, progress)
        ]
        return Contents(self.name, iter(blocks), classes)

    monkeypatch.setattr(Hub, "read", read)
    data = load(name, validation=2)
    assert (data.mean, data.std) == STATISTICS[name]
    if name == "imagenette":
        assert data.augmentation == ResizedCrop(128, flip=True)
        assert data.train.images.shape[2:] == (144, 144)
        assert data.image_size == data.test.images.shape[2:] == data.validation.images.shape[2:] == (128, 128)
        assert load(name, validation=2, image_size=64).train.images.shape[2:] == (72, 72)
    else:
        assert data.augmentation == Augmentation(pad=4, flip=name in MIRRORED)
        assert data.image_size == (height, width)


@pytest.mark.parametrize(
    ("name", "side", "pad"), [("digits", 8, 1), ("digits", 16, 2), ("cifar10", 32, 4), ("mnist", 14, 2)]
)
def test_shifts_are_as_large_a_part_of_a_resized_image(name: str, side: int, pad: int) -> None:
    assert KNOWN[name].pad_at(side) == pad


def test_resized_digits_are_shifted_further(tmp_path: Path) -> None:
    assert load("digits", image_size=16, cache_dir=tmp_path).augmentation == Augmentation(pad=2)

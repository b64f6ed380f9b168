import json
from pathlib import Path

import pytest
import torch

from robustmaps.data import KNOWN, Augmentation, describe, load, prepare


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
    (tmp_path / "data.zip").touch()
    with pytest.raises(ValueError, match=r"data\.zip: not a directory, nor a file of a known kind"):
        load(tmp_path / "data.zip")


@pytest.mark.parametrize("size", [0, -4, 2.5, True])
def test_image_size_is_checked(size: int) -> None:
    with pytest.raises(ValueError, match=r"image_size=.*: expected a number of pixels"):
        prepare("digits", image_size=size)


def test_progress_is_reported() -> None:
    calls: list[tuple[int, int | None]] = []
    prepare("digits", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (1797, 1797)

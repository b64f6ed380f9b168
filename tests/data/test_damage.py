"""Damage to a decoded data set is noticed when it is opened, or when its images are first read."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmaps import data
from robustmaps.data import batches
from robustmaps.engine.checked import Damaged
from robustmaps.engine.files import write_json


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 900), ("test", 200)):
        arrays[f"x_{split}"] = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@pytest.fixture
def cache(source: Path, tmp_path: Path) -> Path:
    """The folder of the decoded set."""
    data.load(source, cache_dir=tmp_path / "cache")
    return next(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def opened(source: Path, cache: Path) -> data.Dataset:
    return data.load(source, cache_dir=cache.parent, validation=0)


def flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 16
    path.write_bytes(content)


def unsampled(path: Path) -> int:
    """A byte of an image between the samples that are verified at opening."""
    return path.stat().st_size // 126 * 45 + 6000


def test_a_damaged_image_is_noticed_when_it_is_first_read_and_not_before(source: Path, cache: Path) -> None:
    file = cache / "train-images.npy"
    place = unsampled(file)
    row = (place - (file.stat().st_size - 900 * 3072)) // 3072
    whole = opened(source, cache).train.images.clone()
    flip(file, place)
    train = opened(source, cache).train
    assert not torch.equal(train.images, whole)  # opened: the damage is not in what is verified then
    assert len(train.subset(torch.arange(10))) == 10
    for read in (
        lambda: train.subset(torch.tensor([row])),
        train.tensors,
        lambda: train.to("cpu"),
        lambda: train.centre(8).tensors(),
        lambda: pickle.dumps(train),
        lambda: list(batches(train, 100, seed=0, epoch=0)),
        lambda: list(batches(train, 100, seed=0, epoch=0, workers=2)),
    ):
        with pytest.raises(Damaged, match=r"train-images.npy: damaged in images \d+ to \d+; delete .*decodes"):
            read()


def test_images_that_move_when_validation_images_are_cut_are_verified(source: Path, cache: Path) -> None:
    validation = data.load(source, cache_dir=cache.parent, validation=90).validation
    held = {image.numpy().tobytes() for image in validation.images}
    images = opened(source, cache).train.images
    file = cache / "train-images.npy"
    size = file.stat().st_size
    for row in range(899, 809, -1):
        place = size - 3072 * (900 - row) + 1500
        if images[row].numpy().tobytes() not in held and place * 63 % (size - 4096) > 63 * 4096:
            break
    flip(file, place)
    opened(source, cache)
    with pytest.raises(Damaged, match="damaged in images"):
        data.load(source, cache_dir=cache.parent, validation=90)


def test_a_sound_set_is_verified_once(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    counts = []
    train = opened(source, cache).train
    real = zlib.crc32
    monkeypatch.setattr("robustmaps.data.blocks.zlib.crc32", lambda *given: (counts.append(1), real(*given))[1])
    train.tensors()
    first = len(counts)
    train.tensors()
    pickle.loads(pickle.dumps(train)).tensors()
    assert first == -(-900 // 5) == len(counts)


@pytest.mark.parametrize("name", ["meta.json", "train-labels.npy", "test-blocks.npy", "test-labels.npy"])
def test_any_other_damage_decodes_the_set_again(name: str, source: Path, cache: Path) -> None:
    before = opened(source, cache)
    content = (cache / name).read_bytes()
    for byte in (7, len(content) // 3, len(content) // 2, len(content) - 9):
        flip(cache / name, byte)
        after = opened(source, cache)
        assert (after.mean, after.std, after.classes, after.fingerprint, after.notes) == (
            *(before.mean, before.std, before.classes),
            *(before.fingerprint, before.notes),
        )
        assert all(map(torch.equal, after.train.tensors(), before.train.tensors()))
        assert (cache / name).read_bytes() == content


def test_a_folder_of_an_earlier_version_opens(source: Path, cache: Path) -> None:
    from robustmaps.engine.reading.plain import read_json

    before = opened(source, cache).train.tensors()
    meta = read_json(cache / "meta.json")
    del meta["small"]
    for split in ("train", "test"):
        (cache / f"{split}-blocks.npy").unlink()
        del meta["files"][f"{split}-blocks.npy"]
    write_json(cache / "meta.json", meta)
    stamp = (cache / "meta.json").stat().st_mtime_ns
    assert all(map(torch.equal, opened(source, cache).train.tensors(), before))
    assert (cache / "meta.json").stat().st_mtime_ns == stamp


def test_every_byte_of_corrupted_images_counts(tmp_path: Path) -> None:
    np.save(tmp_path / "fog.npy", np.zeros((5 * 40, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(40) % 4)
    before = data.open_corruptions(tmp_path).fingerprint()
    for byte in (5000, 200_003, 600_000):
        flip(tmp_path / "fog.npy", byte)
        assert data.open_corruptions(tmp_path).fingerprint() != before
        flip(tmp_path / "fog.npy", byte)
    assert data.open_corruptions(tmp_path).fingerprint() == before


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_extra_images_are_refused(save, source: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    save(tmp_path / "more.npz", image=images, label=np.arange(300) % 10)
    train = data.load(source, cache_dir=tmp_path)
    data.load_extra(tmp_path / "more.npz", train, 0.5, cache_dir=tmp_path)
    unpacked = list(tmp_path.glob("extra-*.npy"))
    damaged = unpacked[0] if unpacked else tmp_path / "more.npz"
    flip(damaged, 500_000)
    with pytest.raises(Damaged, match=rf"{damaged.name}: damaged: image.npy has another checksum"):
        data.load_extra(tmp_path / "more.npz", train, 0.5, cache_dir=tmp_path)


def test_a_set_is_on_the_disk_before_it_has_its_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(os.fstat(handle).st_ino), fsync(handle))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (calls.append(Path(to).name), rename(path, to))[1])
    data.load(source, cache_dir=tmp_path / "cache")
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    named = calls.index(folder.name)
    assert {path.stat().st_ino for path in (folder, *folder.iterdir())} <= set(calls[:named])
    assert (tmp_path / "cache").stat().st_ino in calls[named:]

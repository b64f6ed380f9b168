"""Extra images from .npz files, as generated ones are published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustmaps.data import Dataset, load, load_extra


@pytest.fixture
def pets_data(pets: Path) -> Dataset:
    return load(pets)


def arrays(count: int = 20) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"image": rng.integers(0, 256, (count, 8, 6, 3), dtype=np.uint8), "label": np.arange(count) % 2}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels_are_those_of_the_file(save: Callable[..., None], pets_data: Dataset, tmp_path: Path) -> None:
    given = arrays()
    save(tmp_path / "1m.npz", **given)
    for _ in range(2):
        extra = load_extra(tmp_path / "1m.npz", pets_data, 0.7)
        assert np.array_equal(extra.images.images.numpy(), given["image"].transpose(0, 3, 1, 2))
        assert extra.images.labels.tolist() == given["label"].tolist()
    assert extra.share == 0.7


def test_only_what_is_compressed_is_unpacked_into_the_cache(
    pets_data: Dataset, tmp_path: Path, cache_dir: Path
) -> None:
    np.savez(tmp_path / "plain.npz", **arrays())
    load_extra(tmp_path / "plain.npz", pets_data, 0.5)
    assert not list(cache_dir.glob("extra-*"))
    np.savez_compressed(tmp_path / "packed.npz", **arrays())
    load_extra(tmp_path / "packed.npz", pets_data, 0.5)
    assert len(list(cache_dir.glob("extra-packed-*.npy"))) == 1


def test_writing_to_the_images_never_reaches_the_file(pets_data: Dataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **arrays())
    before = (tmp_path / "e.npz").read_bytes()
    load_extra(tmp_path / "e.npz", pets_data, 0.5).images.images.zero_()
    assert (tmp_path / "e.npz").read_bytes() == before


def test_every_byte_counts_for_the_fingerprint(pets_data: Dataset, tmp_path: Path) -> None:
    given = arrays(20_000)  # of which samples would miss most
    found = set()
    for change, row in ((None, 0), ("image", 7_000), ("image", 7_001), ("label", 5)):
        if change is not None:
            given[change][row] ^= 1
        np.savez(tmp_path / "e.npz", **given)
        found.add(load_extra(tmp_path / "e.npz", pets_data, 0.5).fingerprint)
    assert len(found) == 4


def test_the_fingerprint_tells_files_apart(pets_data: Dataset, tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "e.npz", **given)
    first = load_extra(tmp_path / "e.npz", pets_data, 0.5).fingerprint
    given["image"][3] += 1
    np.savez(tmp_path / "e.npz", **given)
    assert load_extra(tmp_path / "e.npz", pets_data, 0.5).fingerprint != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"expected the arrays image and label, found image"),
        ({"image": np.zeros((20, 9, 6, 3), np.uint8)}, r"shape \(20, 9, 6, 3\); expected \(N, 8, 6, 3\) as in pets"),
        ({"image": np.zeros((20, 8, 6), np.uint8)}, r"shape \(20, 8, 6\); expected \(N, 8, 6, 3\)"),
        ({"image": np.zeros((20, 8, 6, 3))}, r"expected bytes \(uint8\), found float64"),
        ({"image": np.asfortranarray(np.zeros((20, 8, 6, 3), np.uint8))}, r"Fortran order"),
        ({"label": np.full(20, 2)}, r"label 2 out of range; expected 0 to 1"),
        ({"label": np.zeros(19, np.int64)}, r"19 labels for 20 images"),
        ({"label": np.array([{}] * 20)}, r"can't be read as an \.npz file of plain arrays \(Object arrays"),
        ({"image": np.array([{}] * 20)}, r"can't be read as an \.npz file of plain arrays"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str, pets_data: Dataset, tmp_path: Path) -> None:
    given = {key: value for key, value in {**arrays(), **change}.items() if value is not None}
    np.savez(tmp_path / "e.npz", **given)
    with pytest.raises(ValueError, match=message):
        load_extra(tmp_path / "e.npz", pets_data, 0.5)


def test_files_that_are_none(pets_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.npz: no such file"):
        load_extra(tmp_path / "missing.npz", pets_data, 0.5)
    np.savez(tmp_path / "e.npz", **arrays())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "e.npz").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.npz: can't be read as an \.npz"):
        load_extra(tmp_path / "cut.npz", pets_data, 0.5)

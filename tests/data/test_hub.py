import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps.data import load
from robustmaps.data.sources import resolve

datasets = pytest.importorskip("datasets")


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the hub has it: one Parquet file for each split, images as PNG bytes."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    rng = np.random.default_rng(0)
    names = ["zebra", "ape", "cow"]
    features = datasets.Features(
        {"id": datasets.Value("int64"), "img": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
    )
    folder = tmp_path / "animals"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 12), ("test", 6)):
        pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
        rows = {"id": list(range(count)), "img": pictures, "kind": [n % 3 for n in range(count)]}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


def test_columns_and_classes_come_from_the_features(parquet: Path) -> None:
    data = load(f"hf:{parquet}", validation=0)
    assert (data.name, data.classes, data.image_size) == ("animals", ("zebra", "ape", "cow"), (8, 8))
    assert data.train.labels.tolist() == [n % 3 for n in range(12)]
    assert len(data.test) == 6
    expected = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert torch.equal(data.train.images[0], torch.from_numpy(expected.transpose(2, 0, 1).copy()))


def test_a_set_with_train_only_gets_a_test_split(parquet: Path) -> None:
    (parquet / "data/test-00000-of-00001.parquet").unlink()
    data = load(f"hf:{parquet}", validation=0)
    assert (len(data.train), len(data.test)) == (9, 3)


def test_the_second_load_needs_no_hub(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(f"hf:{parquet}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert load(f"hf:{parquet}").fingerprint == first.fingerprint


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"hf:uoft-cs/cifar10: needs .* pip install 'robustmaps\[hub\]'"):
        load("cifar10")


def test_no_image_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "texts").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(str(tmp_path / "texts" / "train.parquet"))
    with pytest.raises(ValueError, match=r"expected one column of images, found \[\] among \['text', 'label'\]"):
        load(f"hf:{tmp_path / 'texts'}")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"hf:.*nothing: can't be loaded"):
        load(f"hf:{tmp_path / 'nothing'}")


def test_hub_specs() -> None:
    source = resolve("hf:owner/name@abc")
    assert (source.name, source.id.repository, source.id.revision) == ("name", "owner/name", "abc")

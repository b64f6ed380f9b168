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


def test_a_folder_of_parquet_files_needs_no_prefix(parquet: Path) -> None:
    assert load(parquet).fingerprint == load(f"hf:{parquet}").fingerprint


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


def parquet_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict, **splits: dict) -> Path:
    """A folder of Parquet files: an image column, and label columns of the given features and values."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, values in splits.items():
        count = len(next(iter(values.values())))
        pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
        features = datasets.Features({"image": datasets.Image(), **columns})
        table = datasets.Dataset.from_dict({"image": pictures, **values}, features=features)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


SIX = [0, 1, 0, 1, 0, 1]


def test_several_label_columns_are_not_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {name: datasets.ClassLabel(names=["a", "b"]) for name in ("fine_label", "coarse_label")}
    values = {"fine_label": SIX, "coarse_label": SIX[::-1]}
    folder = parquet_of(tmp_path, monkeypatch, columns, train=values, test=values)
    message = r"several label columns, fine_label, coarse_label; choose one, such as hf:.*set#label=fine_label"
    with pytest.raises(ValueError, match=message):
        load(f"hf:{folder}")
    assert load(f"hf:{folder}#label=fine_label", validation=0).train.labels.tolist() == SIX
    assert load(f"hf:{folder}#label=coarse_label", validation=0).train.labels.tolist() == SIX[::-1]


@pytest.mark.parametrize("name", ["label", "labels", "class", "Class", "target"])
def test_label_columns_are_known_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"weight": [7] * 6, name: ["cat", "dog"] * 3}
    columns = {"weight": datasets.Value("int64"), name: datasets.Value("string")}
    folder = parquet_of(tmp_path, monkeypatch, columns, train=values, test=values)
    assert load(f"hf:{folder}", validation=0).classes == ("cat", "dog")


def test_hidden_test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"label": SIX}
    columns = {"label": datasets.ClassLabel(names=["a", "b"])}
    folder = parquet_of(tmp_path, monkeypatch, columns, train=values, validation=values, test={"label": [-1] * 6})
    message = r"labels of split test are hidden \(all are -1\); choose another split .*#test=validation"
    with pytest.raises(ValueError, match=message):
        load(f"hf:{folder}")
    data = load(f"hf:{folder}#test=validation", validation=0)
    assert data.test.labels.tolist() == SIX
    with pytest.raises(ValueError, match=r"test=gone: no such split; found train, validation, test"):
        load(f"hf:{folder}#test=gone")


@pytest.mark.parametrize("value", [-1, None, 0.5, 1.0])
def test_single_labels_that_are_none(value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = datasets.Value("float64" if isinstance(value, float) else "int64")
    folder = parquet_of(tmp_path, monkeypatch, {"label": kind}, train={"label": [0, 1, 0, 1, 0, value]})
    with pytest.raises(ValueError, match=r"train row \d: label .* expected whole numbers from 0 on, or names"):
        load(f"hf:{folder}")


@pytest.mark.parametrize("options", ["lable=x", "label", "label=", "=x"])
def test_options_of_a_set_that_are_none(options: str) -> None:
    with pytest.raises(ValueError, match=r"expected hf:owner/name.*options: label, config, train, validation, test"):
        resolve(f"hf:owner/name#{options}")

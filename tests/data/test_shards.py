"""Tar shards in the form of WebDataset."""

import contextlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustmaps import data
from robustmaps.engine.errors import InputError

Sample = Mapping[str, bytes]


def picture(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def sample(level: int, label: object, ending: str = "cls") -> Sample:
    text = json.dumps({"label": label, "caption": "a square"}) if ending == "json" else str(label)
    return {"png": picture(level), ending: text.encode()}


def pack(path: Path, samples: Sequence[Sample], *, first: int = 0, labels_first: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, files in enumerate(samples, first):
            for ending, content in sorted(files.items(), reverse=not labels_first):
                member = tarfile.TarInfo(f"{number:06}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def levels(images: data.ImageSet) -> list[int]:
    return [int(image[0, 0, 0]) for image in images.images]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("pattern", ["set-{}-{:03}.tar", "{}/{:03}.tar", "{}/x_{:03}.tar"])
@pytest.mark.parametrize(("ending", "labels_first"), [("cls", False), ("cls", True), ("json", False)])
def test_shards_are_read_in_the_order_of_their_names(
    pattern: str, ending: str, labels_first: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    for shard in (1, 0, 2):
        samples = [sample(20 * shard + n, n % 2, ending) for n in range(4)]
        pack(folder / pattern.format("train", shard), samples, first=4 * shard, labels_first=labels_first)
    pack(folder / pattern.format("val", 0), [sample(200, 1, ending), sample(201, 0, ending)])
    found = data.load(folder, validation=0)
    assert levels(found.train) == [0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43]
    assert found.train.labels.tolist() == [0, 1] * 6
    assert (levels(found.test), found.test.labels.tolist()) == ([200, 201], [1, 0])
    assert found.classes == ("0", "1")


def test_numbers_are_labels_and_names_come_from_a_file(tmp_path: Path) -> None:
    """Sorted as text, 10 would come before 2, and every label would be another one."""
    folder = tmp_path / "set"
    pack(folder / "train-0.tar", [sample(n, n % 12) for n in range(24)])
    pack(folder / "test-0.tar", [sample(100 + n, n) for n in range(12)])
    found = data.load(folder, validation=0)
    assert found.classes == tuple(map(str, range(12)))
    assert found.test.labels.tolist() == list(range(12))
    (folder / "classnames.txt").write_text("\n".join(f"kind {n}" for n in range(12)))
    named = data.load(folder, validation=0)
    assert named.classes == tuple(f"kind {n}" for n in range(12))
    assert named.test.labels.tolist() == list(range(12))
    pack(folder / "test-1.tar", [sample(7, 12)])
    with pytest.raises(InputError, match=r"test-1.tar: 000000: label 12 out of range; expected 0 to 11, the lines of"):
        data.load(folder)


def test_names_as_labels_and_shards_without_splits(tmp_path: Path) -> None:
    pack(tmp_path / "set/a.tar", [sample(n, ("cat", "dog")[n % 2]) for n in range(16)])
    found = data.load(tmp_path / "set")
    assert found.classes == ("cat", "dog")
    assert len(found.train) + len(found.validation) + len(found.test) == 16


def test_a_single_shard_is_a_set_without_splits(tmp_path: Path) -> None:
    pack(tmp_path / "mine-train-0.tar", [sample(n, n % 3) for n in range(24)])
    found = data.load(tmp_path / "mine-train-0.tar")
    assert (found.name, found.classes) == ("mine-train-0", ("0", "1", "2"))
    assert len(found.train) + len(found.validation) + len(found.test) == 24


def test_a_sample_without_an_image_is_counted(tmp_path: Path) -> None:
    pack(tmp_path / "set/train.tar", [*(sample(n, n % 2) for n in range(8)), {"cls": b"0", "txt": b"no picture"}])
    pack(tmp_path / "set/test.tar", [sample(n, n % 2) for n in range(4)])
    found = data.load(tmp_path / "set", validation=0)
    assert len(found.train) == 8
    assert any("1 sample" in note or "without an image" in note for note in found.notes)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"png": picture(0)}, "no label; expected a number or name in cls, or under label in json"),
        ({"png": picture(0), "cls": b" "}, "no label"),
        ({"png": picture(0), "json": b"[1]"}, "no label"),
        ({"png": picture(0), "json": b"{"}, "its label can't be read"),
        ({"png": picture(0), "json": b"[" * 60_000}, "its label can't be read"),
        ({"png": picture(0), "cls": b"\xff"}, "its label can't be read"),
        ({"png": picture(0), "cls": b"-1"}, "label -1 out of range; expected numbers from 0 on"),
        (
            {"png": picture(0), "cls": b"1099511627776"},
            "label 1099511627776 among 13 images; expected labels from 0 on",
        ),
        ({"png": picture(0), "cls": b"1" * 6000}, "label 111111111111111111 out of range"),
        ({"png": picture(0), "cls": b"0" * 70_000}, "70,000 bytes; expected at most"),
        ({"png": picture(0), "jpg": picture(1), "cls": b"0"}, "2 images"),
        ({"png": b"none", "cls": b"0"}, "000000.png"),
    ],
)
def test_what_is_wrong_is_named_with_its_sample(bad: Sample, message: str, tmp_path: Path) -> None:
    pack(tmp_path / "set/test.tar", [sample(n, n % 2) for n in range(4)])
    pack(tmp_path / "set/train-0.tar", [bad])
    pack(tmp_path / "set/train-1.tar", [sample(n, n % 2) for n in range(8)])
    with pytest.raises(InputError) as raised:
        data.load(tmp_path / "set")
    assert message in str(raised.value)


def test_a_shard_that_is_cut_off_or_of_no_split_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pack(folder / "train-0.tar", [sample(n, n % 2) for n in range(8)])
    pack(folder / "more.tar", [sample(n, n % 2) for n in range(8)])
    with pytest.raises(InputError, match=r"more.tar: a shard of no split beside shards of train; put it into a folder"):
        data.load(folder)
    (folder / "more.tar").unlink()
    whole = (folder / "train-0.tar").read_bytes()
    (folder / "train-0.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train-0.tar"):
        data.load(folder)


def test_changed_shards_are_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pack(folder / "train.tar", [sample(n, n % 2) for n in range(8)])
    pack(folder / "test.tar", [sample(n, n % 2) for n in range(4)])
    before = data.load(folder)
    pack(folder / "test.tar", [sample(50 + n, n % 2) for n in range(6)])
    after = data.load(folder)
    assert (len(before.test), len(after.test)) == (4, 6)
    assert before.fingerprint != after.fingerprint


def test_a_folder_of_classes_with_an_archive_beside_them_is_no_set_of_shards(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("cat", "dog"):
        for number in range(4):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{number}.png").write_bytes(picture(number))
    pack(folder / "backup.tar", [sample(n, n % 2) for n in range(8)])
    assert data.load(folder).classes == ("cat", "dog")


@given(st.binary(max_size=200))
def test_no_label_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("set")
    pack(folder / "train.tar", [{"png": picture(1), "cls": content}, *(sample(n, n % 2) for n in range(8))])
    with contextlib.suppress(InputError):
        data.load(folder, cache_dir=folder / "cache")

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustmaps.data import Augmentation, load


def test_train_and_test_folders(pets: Path) -> None:
    data = load(pets, validation=0)
    assert (data.name, data.classes, data.in_channels, data.image_size) == ("pets", ("cat", "dog"), 3, (8, 6))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 0, 5)
    assert data.train.labels.bincount().tolist() == [10, 8]
    assert data.augmentation == Augmentation(pad=0, flip=True)
    assert data.notes == ()
    with Image.open(pets / "train/cat/3-RGB-6.png") as picture:
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert any(torch.equal(image, expected) for image in data.train.images[data.train.labels == 0])
    assert data.mean == pytest.approx((data.train.images.double() / 255).mean((0, 2, 3)).tolist())


def test_class_folders_alone_get_a_fixed_test_split(write_images: Callable[..., Path]) -> None:
    folder = write_images({"10": 8, "9": 8})
    one, two = load(folder, seed=0), load(folder, seed=1)
    assert one.classes == ("10", "9")
    assert one.test.labels.bincount().tolist() == [2, 2]
    assert "fixed, stratified 25% of the images" in one.notes[0]
    assert torch.equal(one.test.images, two.test.images)


def test_a_validation_split_stands_in_for_a_missing_test_split(write_images: Callable[..., Path]) -> None:
    data = load(write_images({"train/a": 5, "train/b": 5, "valid/a": 1, "valid/b": 2}), validation=0)
    assert len(data.test) == 3
    assert "the source's validation split" in data.notes[0]


def test_a_source_keeps_its_own_validation_split(write_images: Callable[..., Path]) -> None:
    counts = {f"{split}/{name}": 2 + (split == "val") for split in ("train", "val", "test") for name in "ab"}
    folder = write_images(counts)
    assert len(load(folder).validation) == 6
    assert "own split of 6 images" in load(folder).notes[0]
    assert len(load(folder).train) == 4
    assert len(load(folder, validation=0).validation) == 0
    few = load(folder, validation=4)
    assert few.validation.labels.tolist() == [0, 0, 1, 1]
    assert "own split of 6 images, 4 of them" in few.notes[0]
    assert len(load(folder, validation=100).validation) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nothing_is_named(write_images: Callable[..., Path]) -> None:
    folder = write_images({"a": 3, "b": 3})
    (folder / "a" / "gone.png").symlink_to(folder / "nothing.png")
    with pytest.raises(
        ValueError, match=r"a/gone\.png: can't be read \(No such file or directory\); mend or remove it"
    ):
        load(folder)


def test_modes_are_brought_to_the_sets_own(write_images: Callable[..., Path]) -> None:
    write_images({"train/a": 70, "train/b": 3, "test/a": 2, "test/b": 2}, mode="L")
    assert load(write_images({}, root="pets")).in_channels == 1
    folder = write_images({"train/b": 1}, mode="RGB")
    data = load(folder, validation=0)
    assert data.in_channels == data.test.images.shape[1] == 3
    grey = data.train.images[data.train.labels == 0]
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_image_size_resizes_the_shorter_side_and_crops_the_centre(write_images: Callable[..., Path]) -> None:
    folder = write_images({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}, size=(12, 30))
    write_images({"train/a": 2}, size=(40, 16))
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(folder / "test/a/0-RGB-30.png")
    data = load(folder, image_size=8, validation=0)
    assert data.image_size == (8, 8)
    assert (data.test.images == 200).flatten(1).all(1).any()


def test_varying_sizes_without_image_size(write_images: Callable[..., Path]) -> None:
    write_images({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}, size=(12, 30))
    folder = write_images({"train/b": 1}, size=(9, 9))
    with pytest.raises(ValueError, match=r"train/b/0-RGB-9\.png: 9 x 9 pixels, but .* has 12 x 30; set image_size"):
        load(folder)


def test_a_corrupt_image_is_named(pets: Path) -> None:
    broken = pets / "train/dog/3-RGB-6.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"train/dog/3-RGB-6\.png: can't be decoded .* replace or remove it"):
        load(pets)
    broken.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"train/dog/3-RGB-6\.png: can't be decoded"):
        load(pets)


def test_an_empty_class_folder_is_named(pets: Path) -> None:
    (pets / "train/ferret").mkdir()
    (pets / "train/ferret/README.txt").touch()
    with pytest.raises(ValueError, match=r"class folder train/ferret has no image; fill it or remove it"):
        load(pets)


def test_a_class_only_in_test_is_named(write_images: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"pets: class 'c' has no training image"):
        load(write_images({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1, "test/c": 1}))


def test_a_single_class_is_refused(write_images: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"pets: found 1 class 'a', but a classifier needs at least two"):
        load(write_images({"train/a": 3, "test/a": 2}))


def test_a_class_too_small_to_split_is_named(write_images: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"a validation split of 7 images would take all 1 images of class 1"):
        load(write_images({"train/a": 7, "train/b": 1, "test/a": 2}), validation=7)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/a": 2, "train/b": 2}, "missing split test, found only train; add test"),
        ({"test/a": 2, "test/b": 2}, "missing split train, found only test; add train"),
        ({"train": 2, "test": 2}, "images in (train|test) lie in no class folder; expected train/CLASS/IMAGE"),
        ({"": 2}, "an image lies in no class folder"),
        ({"train/a": 2, "b": 2}, "does not fit the other folders"),
        ({"x/train/a": 2, "y/train/b": 2}, "y/train/b does not fit the other folders"),
        ({"x/y/train/a": 2}, "x/y/train/a does not fit the other folders"),
    ],
)
def test_layouts_that_are_none(counts: dict[str, int], message: str, write_images: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=rf"pets: .*{message}"):
        load(write_images(counts))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"nothing: found no images"):
        load(tmp_path / "nothing")


def test_one_folder_on_top_and_hidden_files_are_fine(write_images: Callable[..., Path]) -> None:
    folder = write_images({"v1/train/a": 2, "v1/train/b": 2, "v1/test/a": 1, "v1/test/b": 1})
    (folder / "v1/train/.cache").mkdir()
    (folder / "v1/train/a/._0.png").write_bytes(b"resource fork")
    (folder / "v1/README.md").touch()
    assert len(load(folder, validation=0).train) == 4

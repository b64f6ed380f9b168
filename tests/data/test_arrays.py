import gzip
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustmaps.data import load
from robustmaps.engine.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 6), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, end: str = "", **replaced: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3-ubyte", IMAGES), ("labels-idx1-ubyte", LABELS)):
            content = replaced.get(f"{prefix}_{kind[:6]}", idx(array))
            (folder / f"{prefix}-{kind}{end}").write_bytes(gzip.compress(content) if end else content)
    return folder


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(end: str, tmp_path: Path) -> None:
    data = load(write_idx(tmp_path / "mnist-like", end), validation=0)
    assert (data.name, data.classes, data.image_size) == ("mnist-like", ("0", "1", "2"), (8, 6))
    assert torch.equal(data.train.images, torch.from_numpy(IMAGES[:, None]))
    assert torch.equal(data.test.labels, torch.from_numpy(LABELS).long())
    assert not data.augmentation.flip


def test_idx_with_image_size(tmp_path: Path) -> None:
    assert load(write_idx(tmp_path / "m"), image_size=12).image_size == (12, 12)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"train_images": b"\0\0\x0b\3" + bytes(12)}, r"train-images-idx3-ubyte: no IDX file of bytes in 3 dimensions"),
        ({"train_images": idx(IMAGES)[:-5]}, r"train-images-idx3-ubyte: 571 bytes for the shape \(12, 8, 6\)"),
        ({"t10k_labels": idx(LABELS[:-1])}, r"t10k-labels-idx1-ubyte: 11 labels for 12 images"),
        ({"t10k_labels": idx(LABELS + 1)}, r"t10k-labels-idx1-ubyte: label 3 out of range; expected 0 to 2"),
        ({"train_labels": idx(LABELS + 1)}, r"m: class '0' has no training image"),
        ({"train_labels": idx(LABELS * 0)}, r"m: found 1 class '0'|label 2 out of range"),
    ],
)
def test_idx_that_is_wrong(replaced: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_idx(tmp_path / "m", **replaced))


def test_idx_with_a_missing_split(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "m")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"m/t10k-labels-idx1-ubyte: missing, and no \.gz"):
        load(folder)


def test_idx_with_a_damaged_gzip(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "m", ".gz")
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: can't be read"):
        load(folder)


def npz(tmp_path: Path, **changed: object) -> Path:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:6], "y_test": LABELS[:6], **changed}
    path = tmp_path / "own.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


COLOUR = RNG.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (IMAGES, IMAGES[:, None]),
        (IMAGES[..., None], IMAGES[:, None]),
        (COLOUR, COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR / np.float32(255), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR.astype(float) / 255, COLOUR.transpose(0, 3, 1, 2)),
    ],
)
def test_npz_shapes_and_types(images: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    data = load(npz(tmp_path, x_train=images, x_test=images, y_test=LABELS[:, None].astype(np.int64)), validation=0)
    assert data.name == "own"
    assert torch.equal(data.train.images, torch.from_numpy(expected.copy()))


def test_npz_without_splits_and_with_class_names(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, images=IMAGES, labels=LABELS, classes=np.array(["x", "b", "a"]))
    data = load(path, validation=0)
    assert data.classes == ("x", "b", "a")
    assert (len(data.train), len(data.test)) == (9, 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_test": None}, "missing y_test, found x_train, y_train, x_test"),
        ({"x_train": IMAGES[:, :, 0]}, r"x_train: wrong shape \(12, 8\)"),
        ({"x_train": RNG.random((12, 5, 5, 2))}, r"x_train: wrong shape \(12, 5, 5, 2\)"),
        ({"x_test": IMAGES[:6, :4]}, r"x_test has images of shape \(1, 4, 6\), the others \(1, 8, 6\)"),
        ({"y_train": LABELS[:5]}, "y_train: 5 labels for 12 images; expected one label for each image"),
        ({"y_train": LABELS.astype(int) - 1}, "y_train: label -1 out of range; expected 0 and up"),
        ({"y_test": LABELS[:6] + 1}, "y_test: label 3 out of range; expected 0 to 2"),
        ({"y_train": LABELS * 0.5}, "y_train: labels of type float64"),
        ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "y_train: empty"),
        ({"x_train": IMAGES.astype(np.int64)}, "x_train: type int64; expected uint8, or floats"),
        ({"x_train": IMAGES.astype(np.float32)}, r"x_train: values from 0 to 255; expected floats in \[0, 1\]"),
        ({"x_train": np.where(IMAGES > 3, 0.5, np.nan)}, "x_train: contains NaN"),
        ({"x_train": np.array([{}] * 12)}, "can't be read as an .npz of plain arrays .*allow_pickle"),
    ],
)
def test_npz_that_is_wrong(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"own\.npz: {message}"):
        load(npz(tmp_path, **changed))


def test_npz_that_is_damaged(tmp_path: Path) -> None:
    path = npz(tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"own\.npz: can't be read"):
        load(path)


def test_labels_that_no_images_can_have(tmp_path: Path) -> None:
    labels = LABELS.astype(np.int64)
    labels[3] = 2**40
    with pytest.raises(ValueError, match=r"own\.npz: y_train: label 1099511627776 among 12 images"):
        load(npz(tmp_path, y_train=labels))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: label 250 among 12 images"):
        load(write_idx(tmp_path / "m", train_labels=idx(np.where(LABELS == 1, 250, LABELS).astype(np.uint8))))


def test_class_names_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own\.npz: 2 classes are called 'a'; expected a name for each"):
        load(npz(tmp_path, classes=np.array(["a", "a", "b"])))


@pytest.mark.parametrize("shape", ["(64, 1024, 1024, 1048576)", "(18446744073709551616, 0, 1)", "(-5, 8, 6)"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_announces_more_than_there_is(shape: str, compression: int, tmp_path: Path) -> None:
    path = npz(tmp_path, x_train=None)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr("x_train.npy", array)
    with pytest.raises(ValueError, match=r"own\.npz: (can't be read as an \.npz of plain arrays|x_train: wrong shape)"):
        load(path)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("sizes", [(2**32 - 1,) * 3, (2**31, 2**31, 4), (2**16, 2**15, 1)])
def test_an_idx_file_that_announces_more_than_there_is(sizes: tuple[int, ...], end: str, tmp_path: Path) -> None:
    images = bytes([0, 0, 8, 3]) + np.array(sizes, ">u4").tobytes() + bytes(40)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.*: at most \d+ bytes for the shape .* damaged"):
        load(write_idx(tmp_path / "m", end, train_images=images))


def test_a_compressed_idx_file_that_goes_on_is_not_read_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"more than 576 bytes for the shape \(12, 8, 6\)"):
        load(write_idx(tmp_path / "m", ".gz", train_images=idx(IMAGES) + bytes(1 << 24)))


@given(damage=st.binary(min_size=1, max_size=40), at=st.integers(0, 2000))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_of_an_npz_is_an_input_error_or_none(damage: bytes, at: int, tmp_path: Path) -> None:
    path = npz(tmp_path)
    content = bytearray(path.read_bytes())
    at %= len(content) - len(damage)
    content[at : at + len(damage)] = damage
    path.write_bytes(content)
    with suppress(InputError):
        load(path)

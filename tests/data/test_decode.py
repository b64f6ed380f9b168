"""Images as cameras, scanners and downloads leave them: recognised, turned, scaled, or left out and counted."""

import io
import os
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustmaps.cli import main
from robustmaps.data import load
from robustmaps.data.decode import Encoded, decode
from robustmaps.data.sources.content import HEAD_BYTES, why_left_out
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def decoded(data: bytes, size: int | None = None) -> tuple[np.ndarray, list[str]]:
    tally = Tally()
    return decode(Encoded("x", data, "train", "a"), size, tally), [note.partition(":")[0] for note in tally.notes()]


# How an array stored with an orientation is to be seen, from the EXIF standard: what its row 0 and column 0 are.
TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array, notes = decoded(encoded(Image.fromarray(PIXELS), form, exif=exif, lossless=True))
    assert np.array_equal(array, TURNED[orientation](PIXELS).transpose(2, 0, 1))
    # Pillow itself turns a TIFF.
    assert notes == ([] if orientation == 1 or form == "TIFF" else ["turned as the orientation in the metadata says"])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_changes_no_pixel() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40
    plain, broken = (decoded(encoded(Image.fromarray(PIXELS), "JPEG", **more))[0] for more in ({}, {"exif": exif}))
    assert np.array_equal(plain, broken)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 40000, 65407, 65535]], dtype=np.uint16)
    array, notes = decoded(encoded(Image.fromarray(values), form))
    assert np.array_equal(array[0], np.rint(values / 257).astype(np.uint8))
    assert notes == ["16 bits a channel scaled to 8"]


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colours_are_scaled() -> None:
    values = np.array([[[0, 40_000, 65_535], [257, 32_896, 1_000]]], dtype=">u2")
    array, notes = decoded(png(2, 1, 16, 2, b"\0" + values.tobytes()))
    assert np.abs(array[:, 0].T.astype(int) - np.rint(values[0].astype(float) / 257)).max() <= 1
    assert notes == ["16 bits a channel scaled to 8"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA"])
def test_other_modes_become_grey_or_colour(mode: str) -> None:
    form = {"CMYK": "TIFF", "YCbCr": "TIFF", "HSV": "JPEG", "PA": "PNG"}.get(mode, "PNG")
    source = Image.fromarray(PIXELS).convert(mode)
    source = source.convert("RGB") if mode == "HSV" else source.convert("RGBA") if mode == "PA" else source
    array, notes = decoded(encoded(source, form))
    assert array.shape == (1 if mode in ("1", "L", "LA") else 3, 8, 6)
    assert notes == []
    if mode == "1":
        assert set(np.unique(array)) <= {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_dropped_and_said(mode: str) -> None:
    picture = Image.fromarray(np.dstack([PIXELS, np.full((8, 6), 128, np.uint8)]))
    options = {"transparency": bytes(range(256))} if mode == "P" else {}
    picture = picture.convert("RGB").convert("P") if mode == "P" else picture.convert(mode)
    array, notes = decoded(encoded(picture, **options))
    expected = np.asarray(picture.convert("L" if mode == "LA" else "RGB"))
    assert np.array_equal(array, expected[None] if mode == "LA" else expected.transpose(2, 0, 1))
    assert notes == ["transparency dropped, colours below it kept"]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (6, 8), colour) for colour in ("red", "blue", "lime")]
    array, notes = decoded(encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True))
    assert array[:, 0, 0].tolist() == [255, 0, 0]
    assert notes == ["first of several frames taken"]


def test_pixels_without_a_known_range_are_refused() -> None:
    for values in (np.ones((8, 6), np.float32), np.ones((8, 6), np.int32)):
        with pytest.raises(InputError, match=r"x: pixels of mode '[FI]' have no known range; convert it to 8 or 16"):
            decoded(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side: int) -> None:
    with pytest.raises(InputError, match=r"x: .*(pixels; expected at most 89,478,485|decompression bomb)"):
        decoded(png(side, side, 1, 0, bytes(100)))


def test_a_file_of_another_format_under_an_image_s_name_runs_nothing() -> None:
    with pytest.raises(InputError, match="can't be decoded as an image"):
        decoded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(evil) run\n")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@given(
    st.binary(min_size=1, max_size=20), st.integers(0, 10_000), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
)
def test_damaged_images_are_decoded_or_refused(damage: bytes, at: int, form: str) -> None:
    data = bytearray(encoded(Image.fromarray(PIXELS), form))
    at %= len(data)
    data[at : at + len(damage)] = damage
    try:
        array, _ = decoded(bytes(data))
    except InputError:
        return
    assert array.dtype == np.uint8
    assert array.ndim == 3


FORMS = {
    "a.jfif": "JPEG",
    "b.JPE": "JPEG",
    "c.avif": "AVIF",
    "d.TIF": "TIFF",
    "e.webp": "WEBP",
    "f.bmp": "BMP",
    "g.ppm": "PPM",
    "h": "PNG",
    "i.dat": "JPEG",
    "j.JP2": "JPEG2000",
    "k.img": "GIF",
    "l": "AVIF",
    "m": "WEBP",
    "n": "TIFF",
    "o": "BMP",
    "p": "PPM",
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Sixteen images of a class under all kinds of names, and eight usual ones of another."""
    for split in ("train", "test"):
        for name, form in FORMS.items():
            path = tmp_path / "mixed" / split / "odd" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(PIXELS), form))
        for number in range(8):
            path = tmp_path / "mixed" / split / "usual" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(PIXELS)))
    return tmp_path / "mixed"


def test_no_image_is_dropped_for_its_name(mixed: Path) -> None:
    data = load(mixed, validation=0)
    assert data.train.labels.bincount().tolist() == [16, 8]
    assert not [note for note in data.notes if "left out" in note]


def leave(mixed: Path) -> None:
    """Files that are left out."""
    odd = mixed / "train" / "odd"
    (odd / "README.md").write_text("# about")
    (odd / "empty").touch()
    (odd / "IMG_1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    (odd / ".hidden.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    (mixed / "labels.csv").write_text("a,b\n")


NOTES = [
    "left out, HEIC can't be decoded; convert it to JPEG or PNG: 1 (train/odd/IMG_1.heic)",
    "left out, empty: 1 (train/odd/empty)",
    "left out, hidden by a dot in front of the name: 1 (train/odd/.hidden.png)",
    "left out, not an image: 2 (labels.csv, train/odd/README.md)",
]


@pytest.mark.parametrize("packed", ["", "tar.gz", "zip"])
def test_what_is_left_out_is_counted_and_kept_in_the_cache(
    packed: str, mixed: Path, pack: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    leave(mixed)
    source = pack(mixed, f"m.{packed}", "w:gz") if packed else mixed
    for _ in range(2):
        assert [note for note in load(source).notes if "left out" in note] == NOTES
    assert main(["data", "show", str(source)]) == 0
    shown = capsys.readouterr().out
    assert all(f"Note: {note}" in shown for note in NOTES)


def test_what_can_t_be_opened_without_waiting_is_left_out(mixed: Path) -> None:
    os.mkfifo(mixed / "train" / "odd" / "pipe.png")
    (mixed / "train" / "odd" / "gone").symlink_to(mixed / "nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(mixed / "train" / "odd" / "socket"))
        notes = load(mixed).notes
    assert "left out, not a regular file: 3 (train/odd/gone, train/odd/pipe.png, train/odd/socket)" in notes


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_links_to_folders_above_end(target: str, mixed: Path) -> None:
    (mixed / "train" / "odd" / "loop").symlink_to(target)
    data = load(mixed, validation=0)
    assert len(data.train) == 24
    assert "left out, a link to a folder above it: 1 (train/odd/loop)" in data.notes


def test_a_class_whose_files_are_all_left_out_says_why(mixed: Path) -> None:
    (mixed / "train" / "phone").mkdir()
    (mixed / "train" / "phone" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ValueError, match=r"class folder train/phone has no image; .*; left out, HEIC .*1\.heic"):
        load(mixed)


@given(st.binary(max_size=HEAD_BYTES))
def test_any_bytes_are_recognised_or_not(head: bytes) -> None:
    reason = why_left_out(head)
    assert reason is None or reason.startswith("left out")


def test_an_image_turned_after_the_centre_is_cut_is_the_same_square() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = encoded(Image.fromarray(np.rot90(PIXELS, -1).copy()))
    turned, _ = decoded(encoded(Image.fromarray(PIXELS), exif=exif), 4)
    assert np.array_equal(turned, decoded(upright, 4)[0])

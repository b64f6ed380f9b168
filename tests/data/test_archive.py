import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustmaps.data import load


@pytest.mark.parametrize(
    ("end", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz"), ("zip", "")]
)
def test_an_archive_equals_its_folder(end: str, mode: str, pets: Path, pack: Callable[..., Path]) -> None:
    archive = load(str(pack(pets, f"pets.v2.{end}", mode)), validation=0)
    folder = load(pets, validation=0)
    assert archive.name == "pets.v2"
    assert archive.classes == folder.classes
    for ours, theirs in ((archive.train, folder.train), (archive.test, folder.test)):
        assert sorted(map(tuple, ours.images.flatten(1).tolist())) == sorted(
            map(tuple, theirs.images.flatten(1).tolist())
        )
        assert torch.equal(ours.labels.bincount(), theirs.labels.bincount())


def test_nothing_is_unpacked(pets: Path, pack: Callable[..., Path], cache_dir: Path) -> None:
    load(pack(pets, "pets.tar.xz", "w:xz"))
    assert not list(cache_dir.rglob("*.png"))


@pytest.mark.parametrize(("end", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
@pytest.mark.parametrize("keep", [0.35, 0.7])
def test_a_cut_off_archive_is_named(end: str, mode: str, keep: float, pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, f"pets.{end}", mode)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ValueError, match=rf"pets\.{end}: .*(damaged|cut off).*copy or download it again"):
        load(archive)


def test_an_archive_cut_off_between_two_members(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.tar", "w")
    with tarfile.open(archive) as file:
        last = file.getmembers()[-1]
    archive.write_bytes(archive.read_bytes()[: last.offset])
    with pytest.raises(ValueError, match=r"pets\.tar: the archive is cut off"):
        load(archive)


def test_a_flipped_bit_in_a_compressed_archive(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.tar.gz", "w:gz")
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"pets\.tar\.gz: damaged"):
        load(archive)


def test_no_archive_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"these are not the blocks you are looking for" * 40)
    with pytest.raises(ValueError, match=r"x\.tar: damaged or cut off"):
        load(tmp_path / "x.tar")


def add(path: Path, name: str, **fields: object) -> None:
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(b""))


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("train/cat/../../../evil.png", {}, r"unsafe member 'train/cat/\.\./\.\./\.\./evil\.png' points outside"),
        ("/etc/evil.png", {}, r"unsafe member '/etc/evil\.png' points outside"),
        ("train/cat/a.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link or a device"),
        ("train/cat/a.png", {"type": tarfile.CHRTYPE}, "is a link or a device"),
    ],
)
def test_unsafe_members(
    name: str, fields: dict[str, object], message: str, pets: Path, pack: Callable[..., Path], cache_dir: Path
) -> None:
    archive = pack(pets, "pets.tar", "w")
    add(archive, name, **fields)
    with pytest.raises(ValueError, match=rf"pets\.tar: .*{message}"):
        load(archive)
    assert not [path for path in cache_dir.glob("*") if path.suffix != ".lock"]


def test_a_corrupt_image_in_an_archive_is_named(pets: Path, pack: Callable[..., Path]) -> None:
    (pets / "test/dog/1-RGB-6.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"pets\.tar: \./test/dog/1-RGB-6\.png: can't be decoded"):
        load(pack(pets, "pets.tar", "w"))


def test_an_empty_class_in_an_archive_is_named(write_images: Callable[..., Path], pack: Callable[..., Path]) -> None:
    folder = write_images({"train/a": 2, "train/b": 2, "train/c": 0, "test/a": 1, "test/b": 1})
    with pytest.raises(ValueError, match=r"pets\.tar: class folder train/c has no image"):
        load(pack(folder, "pets.tar", "w"))


def add_to_zip(path: Path, name: str, data: bytes = b"", mode: int = 0, **fields: object) -> None:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    for key, value in fields.items():
        setattr(member, key, value)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, data)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("train/cat/../../../evil.png", 0, "points outside"),
        ("/etc/evil.png", 0, "points outside"),
        ("..\\..\\evil.png", 0, "points outside"),
        ("C:/evil.png", 0, "points outside"),
        ("train/cat/a.png", stat.S_IFLNK | 0o777, "is a link or a device"),
        ("train/cat/a.png", stat.S_IFIFO | 0o600, "is a link or a device"),
        ("train/cat/a.png", stat.S_IFCHR | 0o600, "is a link or a device"),
    ],
)
def test_unsafe_members_of_a_zip(name: str, mode: int, message: str, pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.zip", "")
    add_to_zip(archive, name, b"/etc/passwd", mode)
    with pytest.raises(ValueError, match=rf"pets\.zip: unsafe member .*{message}"):
        load(archive)


def test_an_encrypted_zip_is_refused(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.zip", "")
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"pets\.zip: member .* is encrypted; pack it without a password"):
        load(archive)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.zip", "")
    add_to_zip(archive, "train/cat/a.png", bytes(1 << 26))
    with pytest.raises(ValueError, match=r"pets\.zip: member 'train/cat/a\.png' unpacks from .* to 67,108,864 bytes"):
        load(archive)


def test_a_damaged_zip_is_named(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.zip", "")
    content = bytearray(archive.read_bytes())
    archive.write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"pets\.zip: damaged or cut off"):
        load(archive)
    content[content.index(b"IDAT") + 9] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"pets\.zip: (damaged or cut off|.*can't be decoded)"):
        load(archive)


def test_a_tar_member_that_is_sparse_or_too_large_is_refused(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.tar", "w")
    add(archive, "train/cat/a.png", size=0, type=tarfile.GNUTYPE_SPARSE)
    with pytest.raises(ValueError, match=r"pets\.tar: (unsafe member|damaged)"):
        load(archive)
    archive = pack(pets, "pets.tar", "w")
    with tarfile.open(archive, "a") as file:
        member = tarfile.TarInfo("train/cat/a.png")
        member.size = 1 << 46
        file.fileobj.write(member.tobuf() + bytes(1024))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"pets\.tar: (train/cat/a\.png: 70,368,744,177,664 bytes|damaged)"):
        load(archive)


def test_a_tar_name_of_a_terabyte_is_not_read(pets: Path, pack: Callable[..., Path]) -> None:
    archive = pack(pets, "pets.tar.gz", "w:gz")
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16)))
    with pytest.raises(ValueError, match=r"pets\.tar\.gz: damaged or cut off \(a name of 1,099,511,627,776 bytes\)"):
        load(archive)

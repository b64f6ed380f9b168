"""Extra images, such as generated ones, read in place from an ``.npz``."""

import mmap
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from robustmaps.data.memory_map import map_rows
from robustmaps.data.sets import Dataset, Extra, ImageSet
from robustmaps.data.sources.arrays import check_labels
from robustmaps.data.sources.npy import DAMAGE, check_announced, read_header, read_member
from robustmaps.data.store import quick_checksum
from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, short_hash
from robustmaps.engine.writing.outputs import alone
from robustmaps.engine.writing.writer import cache_root

# The names in published sets, and in this package's own files.
_KEYS = (("image", "label"), ("images", "labels"))
_LOCAL_HEADER = struct.Struct("<26xHH")


def load_extra(path: str | Path, data: Dataset, share: float, *, cache_dir: Path | None = None) -> Extra:
    """Open extra training images for a data set.

    They stay in the file and are read batch by batch, so they need not fit in memory. Compressed files are unpacked
    into the cache once. Nothing is unpickled.

    Args:
        path: an ``.npz`` with ``image``, uint8, (N, H, W, C), and ``label``, integers, (N,).
        data: the data set that they are mixed into, with the same image size and classes.
        share: the share of each batch that is drawn from them, in (0, 1).
        cache_dir: the cache folder; default ``$ROBUSTMAPS_CACHE`` or ``~/.cache/robustmaps``.

    Raises:
        InputError: the file is damaged, lacks an array, or does not match the data set.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"{path}: no such file; expected an .npz file of extra images")
    try:
        with zipfile.ZipFile(file) as archive:
            members = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            keys = next((pair for pair in _KEYS if all(key in members for key in pair)), None)
            if keys is None:
                raise InputError(f"{file}: expected the arrays image and label, found {', '.join(members) or 'none'}")
            images = _map(file, archive, members[keys[0]], cache_dir)
            labels = read_member(archive, members[keys[1]])
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: can't be read as an .npz file of plain arrays ({error})") from error
    images = _channels_first(f"{file}: {keys[0]}", images, data)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    check_labels(f"{file}: {keys[1]}", labels, images, data.num_classes)
    # The last sample has the CRC-32 of both arrays, with which their bytes were compared just now.
    fingerprint = f"{file.name} {short_hash([list(images.shape), quick_checksum(file), file.stat().st_size])}"
    return Extra(
        ImageSet(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64, copy=False))), share, fingerprint
    )


def _map(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, cache_dir: Path | None) -> NDArray[np.uint8]:
    """The array of a member: in place if uncompressed, else from the cache."""
    if member.compress_type == zipfile.ZIP_STORED:
        with file.open("rb") as stream:
            stream.seek(member.header_offset)
            name, extra = cast(tuple[int, int], _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size)))
        start = member.header_offset + _LOCAL_HEADER.size + name + extra
        _verify(file, start, member, "restore it from its source")
        return map_rows(file, start)
    with archive.open(member) as source:
        shape, _, dtype = read_header(source)
    check_announced(member, shape, dtype)
    status = file.stat()
    key = short_hash([str(file.resolve()), status.st_size, status.st_mtime_ns, member.CRC])
    unpacked = cache_root(cache_dir) / f"extra-{file.stem}-{key}.npy"
    with alone(Path(f"{unpacked}.lock"), "unpacking these images", wait=True):
        if not unpacked.exists():
            with archive.open(member) as source, atomic(unpacked) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    _verify(unpacked, 0, member, "delete it; the next command unpacks it again")
    return map_rows(unpacked)


def _verify(path: Path, start: int, member: zipfile.ZipInfo, mend: str) -> None:
    """Compare the bytes of an array with the CRC-32 that the ``.npz`` records; 3 GB take about a second.

    Raises:
        Damaged: they differ.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents,
        memoryview(contents) as whole,
        whole[start : start + member.file_size] as array,
    ):
        if zlib.crc32(array) != member.CRC:
            raise Damaged(f"{path}: damaged: {member.filename} has another checksum than was written; {mend}")


def _channels_first(where: str, images: NDArray[np.uint8], data: Dataset) -> NDArray[np.uint8]:
    """A view of images (N, H, W, C) or (N, H, W) as (N, C, H, W).

    Raises:
        InputError: their size differs from the training images'.
    """
    expected = tuple(data.train.images.shape[1:])
    view = images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None] if images.ndim == 3 else images
    if view.shape[1:] != expected:
        channels, height, width = expected
        raise InputError(
            f"{where} has shape {images.shape}; expected (N, {height}, {width}, {channels}) as in {data.name}"
        )
    return view

"""Decoding of image files into arrays, in parallel."""

import os
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from robustmaps.data.source import Block, Progress
from robustmaps.data.sources.content import FORMATS
from robustmaps.data.tally import Tally
from robustmaps.engine.errors import InputError

_CHUNK = 64
_CHUNK_BYTES = 1 << 24
_GREY_MODES = {"1", "L", "LA", "La"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
#: Formats whose 32-bit mode contains 16-bit values, from 0 to 65535.
_WIDENED = {"PNG", "PPM"}
_OPAQUE = 255
GREY = "grey, repeated over three channels as others are in colour"
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MOST_PIXELS = 89_478_485
"""Pillow's limit, a quarter of a gigabyte in three channels; Pillow itself only warns."""

DECODING = 2
"""Increased when the same files decode to other pixels or labels; a part of the names of cached sets."""


@dataclass(frozen=True)
class Encoded:
    """One image file: its bytes or path, its split and its class."""

    where: str
    data: bytes | Path
    split: str
    label: str


def decode(image: Encoded, image_size: int | None, tally: Tally | None = None) -> NDArray[np.uint8]:
    """Decode one image to uint8, (1, H, W) if grey, else (3, H, W).

    An orientation in its metadata is applied. 16 bits a channel are scaled to 8, transparency is dropped as torchvision
    does, and of several frames the first is taken.

    Args:
        image: the file.
        image_size: see :func:`decode_blocks`.
        tally: counts what was done.

    Raises:
        InputError: the file is damaged, too large, or not an image of at most 16 bits per channel.
    """
    tally = tally or Tally()
    try:
        with Image.open(
            BytesIO(image.data) if isinstance(image.data, bytes) else image.data, formats=_formats()
        ) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise InputError(
                    f"{image.where}: {file.width} x {file.height} pixels; expected at most {_MOST_PIXELS:,} in all"
                )
            if image_size is not None:
                # Decode a JPEG at a half, a quarter or an eighth of its size if that is still large enough.
                file.draft(None, (2 * image_size, 2 * image_size))
            if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
                tally.count("first of several frames taken", image.where)
            wide = _is_sixteen_bit(file)
            file.load()
            picture = _turned(_eight_bits(file, image.where, tally, wide=wide), file, image.where, tally)
            return _channels_first(picture if image_size is None else _square(picture, image_size))
    except InputError:
        raise
    except (
        *(OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, struct.error, MemoryError),
        *(OverflowError, Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise InputError(f"{image.where}: can't be decoded as an image ({error}); replace or remove it") from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of Pillow can decode."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _is_sixteen_bit(file: ImageFile) -> bool:
    """Whether a file that is not loaded yet has 16 bits a channel; of colours, Pillow itself keeps the upper 8."""
    raw = [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in file.tile if tile.args]
    widened = file.mode == "I" and file.format in _WIDENED
    return widened or any(re.fullmatch(r"(I|L|LA|RGB|RGBA|RGBX|CMYK);16[BLN]?", one) for one in raw)


def _eight_bits(file: Image.Image, where: str, tally: Tally, *, wide: bool) -> Image.Image:
    """The first frame as ``L`` or ``RGB``."""
    if wide:
        tally.count("16 bits a channel scaled to 8", where)
    if file.mode in _SIXTEEN_BIT_MODES or (file.mode == "I" and wide):
        return Image.fromarray(((np.asarray(file).astype(np.int64) + 128) // 257).clip(0, 255).astype(np.uint8))
    if file.mode not in _GREY_MODES | _COLOUR_MODES:
        raise InputError(
            f"{where}: pixels of mode {file.mode!r} have no known range; convert it to 8 or 16 bits a channel"
        )
    if file.mode == "P" and "transparency" in file.info:
        file = file.convert("RGBA")  # Pillow warns of a direct conversion
    if file.has_transparency_data and _lowest_alpha(file) < _OPAQUE:
        tally.count("transparency dropped, colours below it kept", where)
    mode = "L" if file.mode in _GREY_MODES else "RGB"
    return file if file.mode == mode else file.convert(mode)


def _lowest_alpha(file: Image.Image) -> int:
    if "A" not in file.getbands():
        return 0  # one colour is declared transparent
    lowest, _ = file.getchannel("A").getextrema()
    return int(lowest)  # type: ignore[arg-type]


def _turned(picture: Image.Image, file: Image.Image, where: str, tally: Tally) -> Image.Image:
    """The picture as its metadata says it is to be seen."""
    try:
        turn = _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged metadata raises many types, and the pixels are sound
        return picture
    if turn is None:
        return picture
    tally.count("turned as the orientation in the metadata says", where)
    return picture.transpose(turn)


def resize(image: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize the shorter side of an array (C, H, W), antialiased, and crop the centre to a square."""
    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    return _channels_first(_square(picture, image_size))


def decode_blocks(
    images: Iterable[Encoded], image_size: int | None, progress: Progress | None, tally: Tally | None = None
) -> Iterator[Block]:
    """Decode images in order, a bounded number ahead, in threads (Pillow releases the interpreter lock).

    Args:
        images: the files.
        image_size: resize the shorter side to it and crop the centre to a square; None to leave the size.
        progress: called with the number of images decoded and the total, if known.
        tally: counts what was done besides.

    Raises:
        InputError: an image is damaged, or without ``image_size`` its size differs from the first image's.
    """

    def work(chunk: list[Encoded]) -> list[NDArray[np.uint8]]:
        arrays = [decode(image, image_size, tally) for image in chunk]
        for image, array in zip(chunk, arrays, strict=True):
            if tally is not None and len(array) == 1:
                tally.count(GREY, image.where)
        return arrays

    workers = os.cpu_count() or 1
    total = len(images) if isinstance(images, list) else None
    first: tuple[str, tuple[int, ...]] | None = None
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[list[Encoded], Future[list[NDArray[np.uint8]]]]] = deque()
        try:
            for chunk in _ahead(_chunks(images), pool, pending, work, 2 * workers):
                encoded, arrays = chunk
                first = first or (encoded[0].where, arrays[0].shape[1:])
                _check_sizes(encoded, arrays, first)
                yield Block(encoded[0].split, _stack(arrays), [image.label for image in encoded])
                done += len(arrays)
                if progress:
                    progress(done, total)
        finally:
            for _, future in pending:
                future.cancel()


def _chunks(images: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Consecutive images of one split, few enough to be kept in memory while they wait."""
    chunk: list[Encoded] = []
    held = 0
    for image in images:
        if chunk and (len(chunk) == _CHUNK or held > _CHUNK_BYTES or image.split != chunk[0].split):
            yield chunk
            chunk, held = [], 0
        chunk.append(image)
        held += len(image.data) if isinstance(image.data, bytes) else 0
    if chunk:
        yield chunk


def _ahead(
    chunks: Iterator[list[Encoded]],
    pool: ThreadPoolExecutor,
    pending: deque[tuple[list[Encoded], Future[list[NDArray[np.uint8]]]]],
    work: Callable[[list[Encoded]], list[NDArray[np.uint8]]],
    depth: int,
) -> Iterator[tuple[list[Encoded], list[NDArray[np.uint8]]]]:
    for chunk in chunks:
        pending.append((chunk, pool.submit(work, chunk)))
        if len(pending) > depth:
            encoded, future = pending.popleft()
            yield encoded, future.result()
    while pending:
        encoded, future = pending.popleft()
        yield encoded, future.result()


def _check_sizes(encoded: list[Encoded], arrays: list[NDArray[np.uint8]], first: tuple[str, tuple[int, ...]]) -> None:
    for image, array in zip(encoded, arrays, strict=True):
        if array.shape[1:] != first[1]:
            raise InputError(
                f"{image.where}: {array.shape[1]} x {array.shape[2]} pixels, but {first[0]} has "
                f"{first[1][0]} x {first[1][1]}; set image_size (--image-size) to resize all images"
            )


def _stack(arrays: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    channels = max(len(array) for array in arrays)
    return np.stack([array if len(array) == channels else array.repeat(channels, axis=0) for array in arrays])


def _square(picture: Image.Image, size: int) -> Image.Image:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _channels_first(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

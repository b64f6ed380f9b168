"""Decoding of image files into arrays, in parallel."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustmaps.data.source import Block, Progress
from robustmaps.engine.errors import InputError

_CHUNK = 64
_GREY_MODES = {"1", "L", "LA", "La"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


@dataclass(frozen=True)
class Encoded:
    """One image file: its bytes or path, its split and its class."""

    where: str
    data: bytes | Path
    split: str
    label: str


def decode(image: Encoded, image_size: int | None) -> NDArray[np.uint8]:
    """Decode one image to uint8, (1, H, W) if grey, else (3, H, W).

    Raises:
        InputError: the file is damaged or not an image of 8 bits per channel.
    """
    try:
        with Image.open(BytesIO(image.data) if isinstance(image.data, bytes) else image.data) as picture:
            if picture.mode not in _GREY_MODES | _COLOUR_MODES:
                raise InputError(
                    f"{image.where}: pixels of mode {picture.mode!r} have more than 8 bits a channel; convert it first"
                )
            if image_size is not None:
                # Decode a JPEG at a half, a quarter or an eighth of its size if that is still large enough.
                picture.draft(None, (2 * image_size, 2 * image_size))
            mode = "L" if picture.mode in _GREY_MODES else "RGB"
            picture.load()
            converted = picture if picture.mode == mode else picture.convert(mode)
            if image_size is not None:
                converted = _square(converted, image_size)
            return _channels_first(converted)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{image.where}: can't be decoded as an image ({error}); replace or remove it") from error


def resize(image: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize the shorter side of an array (C, H, W), antialiased, and crop the centre to a square."""
    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    return _channels_first(_square(picture, image_size))


def decode_blocks(images: Iterable[Encoded], image_size: int | None, progress: Progress | None) -> Iterator[Block]:
    """Decode images in order, a bounded number ahead, in threads (Pillow releases the interpreter lock).

    Raises:
        InputError: an image is damaged, or without ``image_size`` its size differs from the first image's.
    """
    workers = os.cpu_count() or 1
    total = len(images) if isinstance(images, list) else None
    first: tuple[str, tuple[int, ...]] | None = None
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[list[Encoded], Future[list[NDArray[np.uint8]]]]] = deque()
        try:
            for chunk in _ahead(_chunks(images), pool, pending, image_size, 2 * workers):
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
    for _, of_split in groupby(images, key=lambda image: image.split):
        while chunk := list(islice(of_split, _CHUNK)):
            yield chunk


def _ahead(
    chunks: Iterator[list[Encoded]],
    pool: ThreadPoolExecutor,
    pending: deque[tuple[list[Encoded], Future[list[NDArray[np.uint8]]]]],
    image_size: int | None,
    depth: int,
) -> Iterator[tuple[list[Encoded], list[NDArray[np.uint8]]]]:
    def work(chunk: list[Encoded]) -> list[NDArray[np.uint8]]:
        return [decode(image, image_size) for image in chunk]

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

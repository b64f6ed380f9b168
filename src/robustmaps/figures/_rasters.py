"""Arrays as small PNG files, one pixel per entry; the page enlarges them."""

import io

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


def png_of_image(image: Array) -> bytes:
    """An image (C, H, W) in [0, 1]; unless it has one or three channels, they are averaged to grey."""
    if len(image) not in (1, 3):
        image = image.mean(0, keepdims=True)
    levels = np.round(255 * image.clip(0, 1)).astype(np.uint8)
    return _encode(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))


def png_of_change(change: Array, eps: float) -> bytes:
    """A perturbation (C, H, W), scaled so that ``-eps`` is black, 0 is grey and ``+eps`` is white."""
    return png_of_image((0.5 + change / (2 * eps)).astype(np.float32))


def png_of_map(values: Array, top: float) -> bytes:
    """A map (h, w) of non-negative values, dark for 0 and bright for ``top``."""
    colours = mpl.colormaps["magma"](values / (top or 1.0), bytes=True)
    return _encode(np.asarray(colours)[..., :3])


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()

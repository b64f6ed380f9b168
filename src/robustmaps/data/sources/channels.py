"""Grey images as colour ones, and the other way round, for networks that take another number of channels."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robustmaps.data.source import Block, Contents
from robustmaps.engine.errors import InputError

CHOICES = (1, 3)
REPEATED = "grey images repeated over three channels, as channels=3 asks"
TURNED_GREY = "colours turned grey (ITU-R BT.601), as channels=1 asks"
# In 65536ths, as Pillow converts RGB to L.
_LUMA = np.array([19595, 38470, 7471], dtype=np.uint32)


def check_channels(channels: int | None) -> None:
    """Refuse a number of channels that images don't have.

    Raises:
        InputError: neither 1 nor 3.
    """
    if channels is not None and (isinstance(channels, bool) or channels not in CHOICES):
        raise InputError(f"channels={channels}: expected 1 for grey images, or 3 for colour")


def with_channels(contents: Contents, channels: int | None) -> Contents:
    """The contents with so many channels, and a note where that changes images; as they are where None."""
    if channels is None:
        return contents

    def blocks() -> Iterator[Block]:
        for block in contents.blocks:
            if block.images.shape[1] == channels:
                yield block
                continue
            contents.tally.note(TURNED_GREY if channels == 1 else REPEATED)
            yield replace(block, images=_grey(block.images) if channels == 1 else block.images.repeat(3, axis=1))

    return replace(contents, blocks=blocks())


def _grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of colours (n, 3, H, W), their luma (n, 1, H, W)."""
    luma: NDArray[np.uint32] = np.einsum("nchw,c->nhw", images.astype(np.uint32), _LUMA)
    return ((luma + (1 << 15)) >> 16).astype(np.uint8)[:, None]

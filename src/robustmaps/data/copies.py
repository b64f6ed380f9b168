"""Images that occur more than once."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_CHUNK = 1024


def copies(images: Tensor) -> list[list[int]]:
    """Rows of identical images (uint8, (N, C, H, W)), one ascending list for each image that occurs more than once."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(_middles(images)):
        alike[key].append(row)
    found = []
    for rows in alike.values():
        if len(rows) > 1:
            same: dict[bytes, list[int]] = defaultdict(list)
            for row in rows:
                same[_digest(images[row])].append(row)
            found += [group for group in same.values() if len(group) > 1]
    return found


def occur_in(images: Tensor, others: Tensor) -> Tensor:
    """Which images (uint8, (N, C, H, W)) are among others of the same size, as booleans (N,)."""
    keys = set(_middles(images))
    alike = [row for row, key in enumerate(_middles(others)) if key in keys]
    known = {_digest(others[row]) for row in alike}
    return torch.tensor([_digest(image) in known for image in images], dtype=torch.bool)


def keep_together(chosen: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """A choice of rows (N,), as booleans, with all rows of a group on the side of its first one."""
    chosen = chosen.clone()
    for group in groups:
        chosen[torch.tensor(group)] = bool(chosen[group[0]])
    return chosen


def _middles(images: Tensor) -> Iterator[bytes]:
    """The middle row of each image: a few bytes by which nearly all differ, so that large sets are not read in full."""
    for start in range(0, len(images), _CHUNK):
        part = images[start : start + _CHUNK, :, images.shape[2] // 2].cpu().contiguous()
        yield from (row.tobytes() for row in part.numpy())


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.cpu().contiguous().numpy().tobytes(), digest_size=16).digest()

"""Stratified, seeded choices of rows for the splits of a set."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustmaps.data.copies import keep_together
from robustmaps.engine.errors import InputError
from robustmaps.engine.random import stream


def part_size(part: float, total: int, name: str) -> int:
    """Convert a part to a number of images: below 1 a fraction of ``total``, from 1 on the number itself.

    >>> part_size(0.1, 500, "validation"), part_size(32, 500, "validation")
    (50, 32)

    Raises:
        InputError: the part is negative, not a number, or not smaller than the whole.
    """
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part < math.inf:
        raise InputError(f"{name}={part!r}: expected a fraction in [0, 1) or a number of images")
    if part >= 1 and part != int(part):
        raise InputError(f"{name}={part!r}: expected a fraction below 1, or a whole number of images")
    size = int(part) if part >= 1 else round(part * total)
    if size and size >= total:
        raise InputError(f"{name}={part!r}: expected fewer than the {total} images, so that some remain")
    return size


def stratified(labels: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Choose ``count`` rows so that every class has its share, to within one image.

    Args:
        labels: (N,) non-negative integers.
        count: number of rows, at most N.
        seed: with labels, count and purpose, determines the choice.
        purpose: names the random stream, so that two cuts with one seed are independent.

    Returns:
        (count,) row numbers, ascending.
    """
    sizes = labels.bincount()
    quota = sizes.double() * count / max(len(labels), 1)
    take = quota.long()
    # Largest remainder method: the images left by rounding down go to the classes that lost most.
    most_lost = (take - quota).argsort(stable=True)
    take[most_lost[: count - int(take.sum())]] += 1

    shuffled = torch.randperm(len(labels), generator=stream(seed, purpose))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(labels)) - first.repeat_interleave(sizes)
    return by_class[rank < take.repeat_interleave(sizes)].sort().values


def held_out(labels: Tensor, count: int, *, seed: int, purpose: str, groups: Sequence[Sequence[int]] = ()) -> Tensor:
    """Like :func:`stratified`, but no class may lose all its images.

    Rows of a group, such as copies of one image, are held out together or not at all, so that the number of rows may
    differ from ``count`` a little.

    Raises:
        InputError: a class would have no image left.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[stratified(labels, count, seed=seed, purpose=purpose)] = True
    rows = keep_together(chosen, groups).nonzero().squeeze(1)
    sizes = labels.bincount()
    emptied = ((sizes > 0) & (sizes == labels[rows].bincount(minlength=len(sizes)))).nonzero()
    if len(emptied):
        label = int(emptied[0])
        alike = bool((labels[chosen] == label).sum() < sizes[label])
        copies = ", since they are copies of each other and stay together" if alike else ""
        raise InputError(
            f"a {purpose} split of {count} images would take all {int(sizes[label])} images of class {label}{copies}; "
            "make it smaller or add images"
        )
    return rows

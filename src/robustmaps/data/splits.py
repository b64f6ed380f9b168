"""Which images of a set go where: stratified, seeded choices of rows."""

import math

import torch
from torch import Tensor

from robustmaps.engine.errors import InputError
from robustmaps.engine.random import stream


def part_size(part: float, total: int, name: str) -> int:
    """The number of images that a part stands for: a fraction below 1 of ``total``, or from 1 on a number of images.

    >>> part_size(0.1, 500, "validation"), part_size(32, 500, "validation")
    (50, 32)

    Raises:
        InputError: the part is negative, no number, or not smaller than the whole.
    """
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 <= part < math.inf:
        raise InputError(f"{name}={part!r}: expected a fraction in [0, 1) or a number of images")
    if part >= 1 and part != int(part):
        raise InputError(f"{name}={part!r}: expected a fraction below 1, or a whole number of images")
    size = int(part) if part >= 1 else round(part * total)
    if size and size >= total:
        raise InputError(f"{name}={part!r}: must leave some of the {total} images for the rest")
    return size


def stratified(labels: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Choose ``count`` rows so that every class has its share, to within one image.

    Args:
        labels: (N,) integers of at least 0.
        count: how many rows, at most N.
        seed: the choice is a function of the labels, the count, the seed and the purpose.
        purpose: names the random stream, so that two cuts of one seed are independent.

    Returns:
        (count,) row numbers, ascending.
    """
    sizes = labels.bincount()
    quota = sizes.double() * count / max(len(labels), 1)
    take = quota.long()
    # The largest remainder method: what rounding down left over goes to the classes that lost most by it.
    most_lost = (take - quota).argsort(stable=True)
    take[most_lost[: count - int(take.sum())]] += 1

    shuffled = torch.randperm(len(labels), generator=stream(seed, purpose))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(len(labels)) - first.repeat_interleave(sizes)
    return by_class[rank < take.repeat_interleave(sizes)].sort().values


def held_out(labels: Tensor, count: int, *, seed: int, purpose: str) -> Tensor:
    """Like :func:`stratified`, and no class may lose all its images.

    Raises:
        InputError: some class would have no image left.
    """
    rows = stratified(labels, count, seed=seed, purpose=purpose)
    sizes = labels.bincount()
    emptied = ((sizes > 0) & (sizes == labels[rows].bincount(minlength=len(sizes)))).nonzero()
    if len(emptied):
        label = int(emptied[0])
        raise InputError(
            f"a {purpose} split of {count} images would take all {int(sizes[label])} images of class {label}; "
            "make it smaller or add images"
        )
    return rows

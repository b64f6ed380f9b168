"""Layer names that other programs give to networks of ours, so that their checkpoints can be read.

The names are facts of github.com/MTandHJ/rcm (the published code of arXiv 2202.12435), of torchvision, and of the
networks for CIFAR-10 that the code of TRADES, AWP and MART uses.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

Rename = Callable[[Iterable[str]], dict[str, str]]
"""Gives for names there the names here, relative to the classifier; what it does not know keeps its name."""

_STAGE = r"(?:layer|block)(\d)\.(?:layer\.)?(\d+)\."


def by_table(table: Sequence[tuple[str, str]]) -> Rename:
    """Rename by the first regular expression that matches the beginning of a name."""

    def rename(names: Iterable[str]) -> dict[str, str]:
        return {name: _first(table, name) for name in names}

    return rename


def residual_names(inside: Mapping[str, str], around: Mapping[str, str]) -> Rename:
    """Rename the layers of a residual network.

    Args:
        inside: the layers of a block.
        around: the layers outside of the blocks.
    """
    blocks = [(_STAGE + _layer(there), rf"features.group\1.\2.{here}.") for there, here in inside.items()]
    return by_table([*blocks, *((_layer(there), f"{here}.") for there, here in around.items())])


def in_order(features: Sequence[str], head: Mapping[str, str]) -> Rename:
    """Rename ``features.N`` by the order of N, since pools that are left out shift the numbers.

    Args:
        features: the layers that have weights, in order.
        head: the layers of the head.
    """

    def rename(names: Iterable[str]) -> dict[str, str]:
        listed = list(names)
        numbers = sorted({int(found[1]) for name in listed if (found := re.match(r"features\.(\d+)\.", name))})
        table = [(rf"features\.{number}\.", f"{here}.") for number, here in zip(numbers, features, strict=False)]
        return by_table([*table, *((_layer(there), f"{here}.") for there, here in head.items())])(listed)

    return rename


def _layer(name: str) -> str:
    return rf"(?:{name})\."


def _first(table: Sequence[tuple[str, str]], name: str) -> str:
    for pattern, replacement in table:
        renamed, count = re.subn("^" + pattern, replacement, name)
        if count:
            return renamed
    return name

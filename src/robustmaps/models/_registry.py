"""The table of networks and the one function that makes them."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.registry import Registry
from robustmaps.models._choices import POOLS, Pool
from robustmaps.models._classifier import Architecture, Classifier, kaiming
from robustmaps.models._network import Network, Normalize, upsampling
from robustmaps.models._strides import Strides, StridesLike

INITS = ("kaiming", "published")
_REGISTRY = Registry("robustmaps.models", "model", Architecture)
register, architecture = _REGISTRY.register, _REGISTRY.row


def names() -> list[str]:
    """The names that ``create`` knows, family by family."""
    return [row.name for row in _REGISTRY.rows()]


def is_built_in(name: str) -> bool:
    """Whether the network's code is this package's own."""
    return _REGISTRY.find(name).module.startswith("robustmaps.")


def title_of(name: str) -> str:
    """The name of a network as papers write it; that of one from elsewhere as it is given, a file's without its folder.

    >>> title_of("resnet20"), title_of("wrn28_10"), title_of("timm:resnet18")
    ('ResNet-20', 'Wide ResNet-28-10', 'timm:resnet18')
    """
    if name not in _REGISTRY.listed(warn=False) or not is_built_in(name):
        return name if ":" in name else Path(name).name
    size, kind = re.fullmatch(r"[a-z]+(\d+(?:_\d[^_]*)*)?(?:_(.+))?", name).groups("")  # type: ignore[union-attr]
    return f"{architecture(name).family}{'-' * bool(size)}{size.replace('_', '-')} {kind.replace('_', ' ')}".rstrip()


def default_strides(name: str) -> Strides:
    """The strides of that network where none are given.

    >>> str(default_strides("resnet18"))
    '1222'
    """
    return architecture(name).strides


def parse_strides(name: str, value: StridesLike | None) -> Strides:
    """Read strides for that network, its default ones where None.

    >>> str(parse_strides("resnet18", None)), str(parse_strides("resnet18", (1, 1, 2, 2)))
    ('1222', '1122')

    Raises:
        InputError: not one digit from 1 to 9 for each step; the message has the expected length and an example.
    """
    row = architecture(name)
    return Strides.parse(value, default=row.strides, network=name, steps=row.steps)


def create(
    name: str,
    *,
    num_classes: int = 10,
    strides: StridesLike | None = None,
    in_channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    upsample: float = 1,
    upsample_mode: str = "nearest",
    init: str = "kaiming",
    pool: Pool | None = None,
) -> Network:
    """Make an untrained network.

    >>> network = create("resnet18", strides="1122", upsample=2)

    Args:
        name: one of ``names()``.
        num_classes: logits.
        strides: the stride of each downsampling step, such as ``"1122"`` or ``(1, 1, 2, 2)``; the network's own
            where None.
        in_channels: channels of the images.
        mean: the images' mean by channel, 0 where None.
        std: the images' standard deviation by channel, 1 where None.
        upsample: factor, at least 1, by which the normalised images are enlarged.
        upsample_mode: one of `UPSAMPLE_MODES`.
        init: how random weights are drawn: ``kaiming`` for all convolutions, or ``published`` for those that the
            programs of arXiv 2202.12435 draw for the network's family.
        pool: what is taken over the last map, ``avg`` (where None) or ``max``; the weights are the same.

    Raises:
        InputError: a name, strides or a value that the network can't have.
    """
    parsed = parse_strides(name, strides)
    for count_name, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(count, int) or count < 1:
            raise InputError(f"{count_name}={count!r}: expected a whole number of at least 1")
    if init not in INITS:
        raise unknown("init", init, INITS)
    normalize = Normalize(in_channels, mean, std)
    row = architecture(name)
    body = row.build(parsed, in_channels, num_classes)
    if isinstance(body, Classifier):
        draw = row.draw_published if init == "published" else kaiming
        draw(body)
    _set_pool(body, name, pool)
    return Network(normalize, upsampling(upsample, upsample_mode), body)


def _set_pool(body: nn.Module, name: str, pool: Pool | None) -> None:
    if pool not in (None, *POOLS):
        raise unknown("pool", pool, POOLS)
    if pool == "max":
        if not isinstance(body, Classifier):
            raise InputError(f"pool=max: {name} has no average over its last map that a maximum could replace")
        body.pool = nn.AdaptiveMaxPool2d(1)

"""The table of networks and the one function that makes them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import parse_number
from robustmaps.engine.registry import Registry
from robustmaps.models._choices import POOLS, Pool
from robustmaps.models._classifier import Architecture, Classifier, kaiming
from robustmaps.models._network import Network, Normalize, upsampling
from robustmaps.models._strides import Strides, StridesLike

INITS = ("kaiming", "published")
_REGISTRY = Registry("robustmaps.models", "model", Architecture)
register = _REGISTRY.register
_WIDTHS = re.compile("[0-9.]+(?:-[0-9.]+)*")
_WIDEST = 64.0


def names() -> list[str]:
    """The names that ``create`` knows, family by family; each with widths, too."""
    return [row.name for row in _REGISTRY.rows()]


def architecture(name: str) -> Architecture:
    """What is known of a network: of one in ``names()``, or of it with other widths.

    >>> architecture("resnet18_w0.25").family  # a quarter of the channels
    'ResNet'
    >>> body = architecture("resnet8_w1-1-0.5").build(Strides((1, 2, 2)), 3, 10)  # half of them in the last group
    >>> body.head
    Linear(in_features=32, out_features=10, bias=True)

    Raises:
        InputError: no network has that name, or those widths.
    """
    plain, widths = _parts(name)
    row = _REGISTRY.row(plain)
    if not widths:
        return row
    factors = _factors(name)
    if name != (usual := _named(plain, factors)):  # one network, one name
        raise InputError(f"{name}: this network is called {usual}; write that")
    return replace(row, name=name, build=partial(row.build, factors=factors))


def widened(name: str, factors: Sequence[float]) -> str:
    """The name of a network with other widths.

    >>> widened("resnet8", (2, 2, 2)), widened("resnet8_w2", (1, 1, 0.5)), widened("resnet8_w2", (0.5, 0.5, 0.5))
    ('resnet8_w2', 'resnet8_w2-2-1', 'resnet8')

    Args:
        name: of a network.
        factors: by which the channels of each of its groups are multiplied.

    Raises:
        InputError: its widths can't be changed, or not so.
    """
    plain, _ = _parts(name)
    own = _factors(name)
    if len(factors) != len(own):
        raise InputError(f"factors={factors!r}: {plain} has {len(own)} groups; expected a factor for each")
    found = _named(plain, [a * b for a, b in zip(own, factors, strict=True)])
    architecture(found)
    return found


def _factors(name: str) -> list[float]:
    """The factors of the channels of each group."""
    plain, widths = _parts(name)
    groups = _REGISTRY.row(plain).groups
    if not groups:
        raise InputError(f"{name}: the widths of {plain} can't be changed; expected {plain} as it is")
    factors = [1.0]
    if widths:
        written = widths.split("-") if _WIDTHS.fullmatch(widths) else []
        factors = [parse_number(each, f"{name}: width") for each in written]
    factors *= groups if len(factors) == 1 else 1
    if len(factors) != groups or not all(0 < factor <= _WIDEST for factor in factors):
        raise InputError(
            f"{name}: expected one factor of its channels, or {groups}, one for each group of layers, above 0 and at "
            f"most {_WIDEST:g}, such as {plain}_w0.5 or {plain}_w{'1-' * (groups - 1)}0.5"
        )
    return factors


def _named(plain: str, factors: Sequence[float]) -> str:
    written = [f"{factor:.12g}" for factor in factors]
    if len(set(written)) == 1:
        written = written[:1]
    return plain if written == ["1"] else f"{plain}_w{'-'.join(written)}"


def _parts(name: str) -> tuple[str, str]:
    """The name without widths, and the widths; the whole name if there is no network to have them."""
    known = _REGISTRY.listed(warn=False)
    ends = [] if name in known else [mark.start() for mark in re.finditer("_w", name) if name[: mark.start()] in known]
    return (name[: ends[-1]], name[ends[-1] + 2 :] or "nothing") if ends else (name, "")


def is_built_in(name: str) -> bool:
    """Whether the network's code is this package's own."""
    return _REGISTRY.find(_parts(name)[0]).module.startswith("robustmaps.")


def title_of(name: str) -> str:
    """The name of a network as papers write it; that of one from elsewhere as it is given, a file's without its folder.

    >>> title_of("resnet20"), title_of("wrn28_10"), title_of("timm:resnet18"), title_of("resnet8_w0.5")
    ('ResNet-20', 'Wide ResNet-28-10', 'timm:resnet18', 'ResNet-8 w0.5')
    """
    plain, widths = _parts(name)
    if plain not in _REGISTRY.listed(warn=False) or not is_built_in(plain):
        return name if ":" in name else Path(name).name
    size, kind = re.fullmatch(r"[a-z]+(\d+(?:_\d[^_]*)*)?(?:_(.+))?", plain).groups("")  # type: ignore[union-attr]
    title = f"{architecture(plain).family}{'-' * bool(size)}{size.replace('_', '-')} {kind.replace('_', ' ')}".rstrip()
    return f"{title} w{widths}" if widths else title


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
        name: one of ``names()``, or one with the factors of its channels: ``resnet18_w0.25`` for all groups of layers,
            ``resnet8_w1-1-0.5`` for each; a stem has the first.
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
    try:
        body = row.build(parsed, in_channels, num_classes)
    except (InputError, ValueError) as error:  # PyTorch's layers raise the latter, for groups that don't divide
        raise InputError(f"{name}: {error}") from error
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

"""When a network is enlarged during training, and which networks come first. No PyTorch here."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from robustmaps.config._enlarge_option import Surgery, parse_surgery
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import counted, parse_number

if TYPE_CHECKING:
    from robustmaps.config._model import ModelConfig


def parse_shares(text: str | None) -> tuple[float, ...]:
    """The shares of the epochs after which a network is enlarged.

    >>> parse_shares("0.5,0.8")
    (0.5, 0.8)

    Raises:
        InputError: they are not ascending numbers in (0, 1).
    """
    if text is None:
        return ()
    try:
        shares = tuple(parse_number(part.strip(), "enlarge_at") for part in text.split(","))
    except InputError:
        shares = ()
    if not shares or not all(0 < share < 1 for share in shares) or any(a >= b for a, b in pairwise(shares)):
        raise InputError(
            f"enlarge_at={text}: expected a share of the epochs in (0, 1) such as 0.8, or ascending ones such as "
            "0.5,0.8; leave it out to train on large maps from the beginning"
        )
    return shares


def last_epochs(text: str | None, epochs: int) -> tuple[int, ...]:
    """The last epoch, from 1, of each network that is enlarged.

    >>> last_epochs("0.5,0.8", 10)
    (5, 8)

    Raises:
        InputError: an epoch can't be shared.
    """
    found = tuple(math.floor(share * epochs + 0.5) for share in parse_shares(text))
    if any(a >= b for a, b in pairwise((0, *found, epochs))):
        raise InputError(
            f"enlarge_at={text} with {counted(epochs, 'epoch')}: would enlarge after "
            f"{' and '.join(map(str, found))}; expected at least one epoch before, between and after; train for more"
        )
    return found


def plain(model: "ModelConfig") -> "ModelConfig":
    """The network before it is enlarged: of weights to begin with, as they are; else with strides of its own.

    Args:
        model: of a resolved run.
    """
    from robustmaps.models import default_strides  # which loads PyTorch

    before = replace(model, enlarge=None, enlarge_at=None)
    if model.init_from is not None:
        return before
    usual = type(model)
    strides = None if ":" in model.model else str(default_strides(model.model))
    return replace(before, strides=strides, upsample=usual.upsample, upsample_mode=usual.upsample_mode)


def earlier_models(model: "ModelConfig") -> tuple["ModelConfig", ...]:
    """The networks that are trained before the enlarged one, in order; none without ``enlarge_at``.

    >>> from robustmaps.config import ModelConfig
    >>> [one.upsample for one in earlier_models(ModelConfig(upsample=2.0, enlarge_at="0.5,0.8"))]
    [1.0, 1.5]

    Args:
        model: of a resolved run.

    Raises:
        InputError: several shares, and something else than upsampling.
    """
    shares = parse_shares(model.enlarge_at)
    if not shares:
        return ()
    first = plain(model)
    others = [_upsampled(model, first, number / len(shares)) for number in range(1, len(shares))]
    return (first, *others)


def _upsampled(model: "ModelConfig", first: "ModelConfig", share: float) -> "ModelConfig":
    """The network with a part of the growth of its images' side."""
    surgery = Surgery() if model.enlarge is None else parse_surgery(model.enlarge)
    alone = Surgery(upsample=surgery.upsample, upsample_mode=surgery.upsample_mode)
    factors = [factor for factor in (model.upsample / first.upsample, surgery.upsample) if factor != 1]
    if surgery != alone or model.strides != first.strides or len(factors) != 1:
        raise InputError(
            f"enlarge_at={model.enlarge_at}: several shares let the factor of upsampling grow step by step, and "
            "strides and activations change at once; give one share, such as 0.8, or upsample alone"
        )
    grown = 1 + share * (factors[0] - 1)
    if surgery.upsample != 1:
        return replace(model, enlarge=str(replace(surgery, upsample=grown)), enlarge_at=None)
    return replace(model, upsample=grown, enlarge_at=None)

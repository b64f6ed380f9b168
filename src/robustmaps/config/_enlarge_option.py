"""What to change on a network, in words. No PyTorch here: the command line reads it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import parse_number
from robustmaps.models import ACTIVATIONS, SMOOTHED, Activation, Smooth, UpsampleMode


@dataclass(frozen=True)
class Surgery:
    """The enlargement.

    Attributes:
        upsample: factor by which images are upsampled in front of the network
        upsample_mode: interpolation of the upsampled images (area differs from nearest for a factor such as 1.5)
        factor: divisor of the strides of the chosen steps (default: 2 with --where)
        where: downsampling steps to change: first, last, or their numbers with commas, e.g. 0,2 (default: none)
        dilate: spread the taps of later windows, so that a trained network keeps its function
        smooth: average the chosen steps' maps down to the size they had, so that only the stride changes: over windows
            (average) or by a triangle filter (blur) (default: let them grow)
        activation: replace every ReLU by SiLU, which has no corner; a trained network computes something else then, so
            train it on (default: keep them)
    """

    upsample: float = 1.0
    upsample_mode: UpsampleMode = "nearest"
    factor: int | None = None
    where: str | None = None
    dilate: bool = False
    smooth: Smooth | None = None
    activation: Activation | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is changed."""
        return self == Surgery()

    def arguments(self) -> dict[str, Any]:
        """Those of `enlarge`.

        Raises:
            InputError: ``where`` is no step.
        """
        return {**asdict(self), "where": parse_where(self.where)}

    @property
    def short(self) -> str:
        """As a person writes it.

        >>> parse_surgery("dilate=true,where=0,1,upsample=2").short
        'upsample=2,0,1,dilate'
        """
        words = str(self).replace("dilate=true", "dilate")
        return re.sub("(where|smooth|activation)=", "", words)

    def __str__(self) -> str:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        given = [(name, value) for name, value in values.items() if value != getattr(Surgery, name)]
        return ",".join(f"{name}={_text(value)}" for name, value in given)


def parse_where(text: str | None) -> str | Sequence[int] | None:
    """``first``, ``last``, or numbers with commas.

    >>> parse_where("0,-1")
    (0, -1)
    """
    if text is None or text in ("first", "last"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"where={text!r}: expected first, last, or numbers of steps such as 0,2") from None


def parse_surgery(text: str) -> Surgery:
    """Options with commas, in which ``where=``, ``smooth=``, ``activation=`` and ``=true`` may be left out.

    >>> parse_surgery("upsample=2")
    Surgery(upsample=2.0, upsample_mode='nearest', factor=None, where=None, dilate=False, smooth=None, activation=None)
    >>> str(parse_surgery("0,1,dilate"))
    'where=0,1,dilate=true'
    >>> str(parse_surgery("last,silu"))
    'where=last,activation=silu'

    Raises:
        InputError: an unknown option, one that is given twice, or a value that does not fit.
    """
    names = [item.name for item in fields(Surgery)]
    words: dict[str, str] = {}
    for part in (part.strip() for part in text.split(",")):
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if not equals and name in SMOOTHED:
            name, equals, value = "smooth", "=", name
        if not equals and name in ACTIVATIONS:
            name, equals, value = "activation", "=", name
        if not equals and name != "dilate":  # a step
            words["where"] = f"{words['where']},{part}" if "where" in words else part
            continue
        if name not in names:
            raise unknown(f"option in enlarge={text!r}:", name, names)
        if name in words:
            raise InputError(f"enlarge={text!r}: {name} is given twice")
        words[name] = value.strip() if equals else "true"
    values: dict[str, Any] = {name: _value(name, word) for name, word in words.items()}
    return Surgery(**values)


def _value(name: str, word: str) -> object:
    if name == "upsample":
        return parse_number(word, "enlarge: upsample")
    if name == "factor":
        if not word.isdigit():
            raise InputError(f"enlarge: factor={word!r}: expected a whole number of at least 2")
        return int(word)
    if name == "dilate":
        if word not in ("true", "false"):
            raise InputError(f"enlarge: dilate={word!r}: expected true or false")
        return word == "true"
    if name == "smooth" and word not in SMOOTHED:
        raise unknown("smooth", word, SMOOTHED)
    if name == "activation" and word not in ACTIVATIONS:
        raise unknown("activation", word, ACTIVATIONS)
    if name == "where":
        try:
            parse_where(word)
        except InputError:
            raise InputError(
                f"enlarge: {word!r}: expected first, last, numbers of steps such as 0,2, or options such as upsample=2"
            ) from None
    return word


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

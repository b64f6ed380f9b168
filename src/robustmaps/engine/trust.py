"""What code may run: what the person typed, never what a file names."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from robustmaps.engine.errors import InputError

LIBRARIES = ("torchvision", "timm", "hf", "pytorchcv")
"""The prefixes of networks that another library makes from a name in its own list."""


@dataclass(frozen=True)
class Trust:
    """The functions that may be called even if only a file names them.

    Attributes:
        names: as ``module:function``.
        everything: any function.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False


# Ambient, so that whatever opens files inherits it and nothing can forget to pass it on; without it, all is refused.
_TRUST: ContextVar[Trust] = ContextVar("trust", default=Trust())  # noqa: B039 - frozen


def present_trust() -> Trust:
    """What is trusted here, to hand on to another process."""
    return _TRUST.get()


@contextmanager
def trusting(trust: Trust) -> Iterator[None]:
    """Within the block, trust this as well."""
    before = _TRUST.get()
    token = _TRUST.set(Trust(before.names | trust.names, before.everything or trust.everything))
    try:
        yield
    finally:
        _TRUST.reset(token)


@contextmanager
def allow_code(*names: str) -> Iterator[None]:
    """Within the block, files may name these functions, or any if none are given.

    >>> with allow_code("mine:network"):  # doctest: +SKIP
    ...     open_checkpoint("runs/mine")

    Args:
        names: as ``module:function``.
    """
    with trusting(Trust(frozenset(names), everything=not names)):
        yield


def names_code(spec: str) -> bool:
    """Whether the name of a network stands for a function to import, ``module:function``.

    >>> names_code("os:abort"), names_code("timm:resnet18"), names_code("resnet18")
    (True, False, False)
    """
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind not in LIBRARIES


def is_trusted(spec: str) -> bool:
    """Whether the name of a network may be taken from a file: it is no function, or one that is trusted here."""
    trust = _TRUST.get()
    return not names_code(spec) or trust.everything or spec in trust.names


def check_from_file(spec: str, where: object) -> None:
    """Refuse a name from a file that would run code which nobody typed.

    Args:
        spec: the name of a network.
        where: the file, for the message.

    Raises:
        InputError: it stands for a function that is not trusted.
    """
    if is_trusted(spec):
        return
    raise InputError(
        f"{where}: names the network {spec!r}, a function whose code would be run; a file may only name built-in "
        f"networks and those of {', '.join(LIBRARIES)}. If you trust the file, add --allow-code (in Python: with "
        f"robustmaps.networks.allow_code()), or type the name yourself (train {spec})"
    )

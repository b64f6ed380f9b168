"""The error type for bad input, the nearest match for a misspelt name, and the exception of a run that was stopped."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A value that the caller gave can't be used; the message names it, what was expected and how to fix it."""


class Interrupted(Exception):  # noqa: N818 - the work is sound, only not finished
    """Work was asked to stop, and has saved all that is needed to go on."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry: the nearest match first, then all choices.

    >>> str(unknown("model", "resnet19", ["resnet18", "vgg16"]))
    "unknown model 'resnet19'; did you mean 'resnet18'? Choices: resnet18, vgg16"
    """
    names = list(choices)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(f"unknown {kind} {str(name)!r}{hint} Choices: {', '.join(names)}")

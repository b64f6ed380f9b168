"""The error type for bad input, the nearest match for a misspelt name, and the exception of a run that was stopped."""

from collections.abc import Iterable
from difflib import get_close_matches

# More choices than this would hide the message.
_MANY, _NEAREST = 80, 12


class InputError(ValueError):
    """A value that the caller gave can't be used; the message names it, what was expected and how to fix it."""


class Interrupted(Exception):  # noqa: N818 - the work is sound, only not finished
    """Work was asked to stop, and has saved all that is needed to go on."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry: the nearest match first, then the choices, of many the nearest.

    >>> str(unknown("model", "resnet19", ["resnet18", "vgg16"]))
    "unknown model 'resnet19'; did you mean 'resnet18'? Choices: resnet18, vgg16"
    """
    names = list(choices)
    near = get_close_matches(str(name), names, n=_NEAREST, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = names if len(names) <= _MANY else [*near, *(n for n in names if n not in near)][:_NEAREST]
    rest = f", and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return InputError(f"unknown {kind} {str(name)!r}{hint} Choices: {', '.join(shown)}{rest}")

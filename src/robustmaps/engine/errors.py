"""Errors: bad input, unknown names with their nearest match, and interrupted work."""

import errno
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile
from pathlib import Path

# More choices than this would hide the message.
_MANY, _NEAREST = 30, 12


class InputError(ValueError):
    """The caller gave an unusable value; the message names it, what was expected and how to fix it."""


class Busy(InputError):  # noqa: N818 - named after what happened
    """Another process works there at this moment."""


class NoGradientError(InputError):
    """A network gives no gradient with respect to its images, which gradient attacks need.

    Args:
        reason: what stands in the way.

    Attributes:
        reason: the same.
    """

    def __init__(self, reason: str = "its output does not require grad") -> None:
        self.reason = reason
        super().__init__(
            f"the network gives no gradient with respect to the images ({reason}), so gradient attacks can't run on "
            "it; use square, which needs only logits, or robustmaps diagnose to find the cause"
        )

    def __reduce__(self) -> tuple[type["NoGradientError"], tuple[str]]:
        return NoGradientError, (self.reason,)


class Interrupted(Exception):  # noqa: N818 - not an error: the work is sound but unfinished
    """Work stopped on request, after saving everything needed to resume."""


class DiskFull(OSError):  # noqa: N818 - named after what happened
    """There is no space left for a file. What was written before is intact.

    Args:
        path: the file.
        reason: why, if it is not the disk that is full.
    """

    def __init__(self, path: Path, reason: str = "") -> None:
        self.path, self.reason = path, reason
        super().__init__(errno.ENOSPC, reason)

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"no space left to write {self.path}{why}; what was saved before is intact, so free space and try again"

    def __reduce__(self) -> tuple[type["DiskFull"], tuple[Path, str]]:
        return DiskFull, (self.path, self.reason)


def nearest(name: str, choices: Sequence[str]) -> list[str]:
    """At most 12 similar choices: those that the fewest edits make, share the most, and begin alike, first.

    >>> nearest("pgd-21", ["pgd-l1", "pgd-100", "pgd-20"])[0]
    'pgd-20'
    """
    near = get_close_matches(name, choices, n=_NEAREST, cutoff=0.5)
    shared = {choice: SequenceMatcher(None, choice, name).ratio() for choice in near}
    return sorted(near, key=lambda choice: (_edits(name, choice), -shared[choice], -_alike(name, choice)))


def _alike(one: str, other: str) -> int:
    """The number of letters that both begin with."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))])


def _edits(one: str, other: str) -> int:
    """Letters to insert, remove, replace or swap with the next (Damerau, CACM 1964)."""
    before, last = list[int](), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            least = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted
            line.append(min(least, before[column - 2] + 1) if swapped else least)
        before, last = last, line
    return last[-1]


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry: the nearest match, then the choices (the nearest of many).

    >>> str(unknown("model", "resnet19", ["resnet18", "vgg16"]))
    "unknown model 'resnet19'; did you mean 'resnet18'? Choices: resnet18, vgg16"
    """
    names = list(choices)
    near = nearest(str(name), names)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    shown = names if len(names) <= _MANY else [*near, *(n for n in names if n not in near)][:_NEAREST]
    rest = f", and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return InputError(f"unknown {kind} {str(name)!r}{hint} Choices: {', '.join(shown)}{rest}")

"""Text from elsewhere: on one line, and made harmless."""

import re
import shlex
from collections.abc import Sequence

_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)

# How names of runs end.
_HASH = re.compile(r"-[0-9a-f]{8}$")


def visible(text: str) -> str:
    r"""Write out what would steer a terminal, reorder a line or hide in it; tabs and line ends stay.

    Names of runs, classes and files come from others. Every output goes through this function: control characters
    (ESC), marks of direction, line separators, tags and what is no character are written as Python writes them.

    >>> print(visible("cat" + chr(27) + "[2J"))
    cat\x1b[2J
    """
    return _INVISIBLE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell(*words: object) -> str:
    """A command that can be pasted into a shell, whatever names of others are in it.

    >>> shell("robustmaps", "report", "runs/$(id)")
    "robustmaps report 'runs/$(id)'"
    """
    return shlex.join(map(str, words))


def told_apart(names: Sequence[str]) -> list[str]:
    """Names of runs without their hashes and the parts that all of them begin and end with; whole where that says less.

    >>> told_apart(["digits-resnet8-122-at-seed0-9874610e", "digits-resnet8-112-at-seed0-1bcdef23"])
    ['122', '112']
    """
    parts = [_HASH.sub("", name).split("-") for name in names]
    shortest = min(map(len, parts), default=0)
    head = next((n for n in range(shortest) if len({each[n] for each in parts}) > 1), shortest)
    tail = next((n for n in range(shortest - head) if len({each[-1 - n] for each in parts}) > 1), shortest - head)
    short = ["-".join(each[head : len(each) - tail]) for each in parts]
    return short if all(short) and len(set(short)) == len(short) else list(names)


def first_line(error: BaseException) -> str:
    """An error's message on one line of at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"

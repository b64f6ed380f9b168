"""Sizes, strides and rows of figures as text; names from files, made harmless."""

import re
from collections.abc import Iterable

_INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


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


def by(size: tuple[float, float] | None) -> str:
    """``14x14``; a dash where there is no size."""
    return "-" if size is None else f"{size[0]:g}x{size[1]:g}"


def stride_text(stride: tuple[float, float] | None) -> str:
    """One number where both axes have the same stride."""
    return f"{stride[0]:g}" if stride is not None and stride[0] == stride[1] else by(stride)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Align rows in columns as wide as their widest cell."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)

"""Sizes, strides, rows of figures and errors as text."""

from collections.abc import Iterable


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


def first_line(error: BaseException) -> str:
    """An error's message on one line of at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"

"""Numbers as people write them, such as ``8/255`` and ``14x14``."""

import math
import re

from robustmaps.engine.errors import InputError

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_FRACTION = re.compile(r"\s*([^/\s]+)\s*(?:/\s*([^/\s]+)\s*)?")


def parse_number(text: str | float, name: str = "value") -> float:
    """Parse a finite number or a fraction.

    >>> parse_number("8/255") == 8 / 255
    True

    Raises:
        InputError: the text is not a finite number or fraction.
    """
    try:
        if isinstance(text, bool):
            raise ValueError
        if isinstance(text, int | float):
            number = float(text)
        else:
            match = _FRACTION.fullmatch(text)
            if match is None:
                raise ValueError
            number = float(match[1]) / float(match[2] or 1)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, ZeroDivisionError, TypeError, OverflowError):
        raise InputError(f"{name}={text!r}: expected a finite number or a fraction such as 8/255") from None
    return number


def check_eps(eps: float, norm: str) -> None:
    """Refuse an invalid perturbation budget.

    Args:
        eps: the radius, in units of images in [0, 1].
        norm: ``linf``, ``l2`` or ``l1``.

    Raises:
        InputError: ``eps`` is not positive and finite or, for l_inf, above 1.
    """
    if not isinstance(eps, int | float) or not math.isfinite(eps) or eps <= 0:
        raise InputError(f"eps={eps!r}: expected a positive number in units of images in [0, 1], such as 8/255")
    if norm == "linf" and eps > 1:
        raise InputError(f"eps={eps}: expected a value in (0, 1] for l_inf; did you mean {eps:g}/255?")


def norm_text(norm: str) -> str:
    """A norm as prose and plots write it.

    >>> norm_text("linf"), norm_text("l2")
    ('l_inf', 'l_2')
    """
    return f"l_{norm.removeprefix('l')}"


def budget_text(norm: str, eps: float) -> str:
    """A budget in words.

    >>> budget_text("linf", 8 / 255)
    'l_inf, eps 8/255'
    """
    return f"{norm_text(norm)}, eps {as_fraction(eps)}"


def check_at_least(name: str, value: float, least: float, *, exclusive: bool = False) -> None:
    """Refuse a number below its bound."""
    bound = f"{'above' if exclusive else 'of at least'} {least:g}"
    number = isinstance(value, int | float) and math.isfinite(value)
    if not number or value < least or (exclusive and value == least):
        raise InputError(f"{name}={value!r}: expected a number {bound}")


def check_whole(name: str, value: int, least: int) -> None:
    """Refuse anything but a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")


def exact(number: float) -> str:
    """The number as a fraction if that is read back as the same, otherwise with all digits."""
    fraction = as_fraction(number)
    return fraction if parse_number(fraction) == number else repr(number)


def human(number: float, unit: str = "") -> str:
    """Format a number with three significant digits and an SI prefix.

    >>> human(12_500_000, "FLOP")
    '12.5 MFLOP'
    """
    scale = 0
    while abs(number) >= 999.5 and scale < len(_PREFIXES) - 1:
        number /= 1000
        scale += 1
    text = f"{number:.3g}"
    return f"{text} {_PREFIXES[scale]}{unit}".rstrip()


def as_fraction(value: float) -> str:
    """Format a budget: short decimals as they are, other whole 255ths as a fraction.

    >>> as_fraction(8 / 255), as_fraction(0.15), as_fraction(51 / 255)
    ('8/255', '0.15', '0.2')
    """
    levels, short = value * 255, f"{value:g}"
    if (
        abs(levels - round(levels)) < 1e-9
        and 0 < round(levels) < 255
        and not (float(short) == value and len(short) < 5)
    ):
        return f"{round(levels)}/255"
    return short


def in_words(value: object) -> str:
    """A value of an option as a person writes it; that of one that is left out is ``default``.

    >>> in_words(8 / 255), in_words(None), in_words(True), in_words("1122")
    ('8/255', 'default', 'true', '1122')
    """
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return as_fraction(value) if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def by(size: tuple[float, float] | None) -> str:
    """``14x14``; a dash where there is no size, ``all`` for one without end."""
    return "-" if size is None else "all" if math.inf in size else f"{size[0]:g}x{size[1]:g}"


def stride_text(stride: tuple[float, float] | None) -> str:
    """One number where both axes have the same stride."""
    return f"{stride[0]:g}" if stride is not None and stride[0] == stride[1] else by(stride)

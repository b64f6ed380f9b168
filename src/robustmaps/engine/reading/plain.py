"""Plain values from JSON that may be anything.

More is refused than `json` refuses: what JSON has not (NaN, infinity), what would surprise later (a key given twice,
numbers too large for a float, text that is no Unicode), and what would exhaust the stack.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robustmaps.engine.checked import unsealed
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import read_limited

DEEPEST = 40
"""Levels of nesting; our own files have less than ten."""
MOST_JSON_BYTES = 1 << 28
"""The size of the verdicts of six million images."""
_ESCAPE = "\\u"
_LARGEST_WHOLE = 1 << 64


def loads(text: str | bytes) -> Any:
    """Plain values from JSON.

    Raises:
        ValueError: it is not JSON, or one of the things above.
    """
    try:
        values = json.loads(
            text, object_pairs_hook=_mapping, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
        if (_ESCAPE if isinstance(text, str) else _ESCAPE.encode()) in text:  # type: ignore[operator]
            # Half of a surrogate pair can't be printed.
            json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    check_depth(values)
    return values


def check_depth(values: Any) -> None:
    """Refuse values nested too deep for functions that call themselves.

    Raises:
        ValueError: they are.
    """
    level = [values]
    for _ in range(DEEPEST + 1):
        level = [outer for outer in level if isinstance(outer, dict | list)]
        if not level:
            return
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    raise ValueError(f"nested more than {DEEPEST} levels deep")


def read_json(
    path: str | Path, mend: str = "restore it from a copy", *, most_bytes: int = MOST_JSON_BYTES
) -> dict[str, Any]:
    """Read a file written by `robustmaps.engine.files.write_json`, without its checksum.

    Args:
        path: the file.
        mend: what to do about damage, for the message.
        most_bytes: the largest size.

    Raises:
        FileNotFoundError: there is nothing.
        InputError: it can't be read, is not JSON, exceeds a limit, or is damaged.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(2, "no such file", str(path))
    text = read_limited(path, most_bytes, "a JSON file")
    try:
        values = loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {mend}") from error
    return unsealed(values, path, mend)


def _mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:40]!r} is given twice")
        values[key] = value
    return values


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) > _LARGEST_WHOLE:
        raise ValueError(f"{text[:40]} is too large")
    return number

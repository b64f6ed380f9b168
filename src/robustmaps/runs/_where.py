"""Conditions on rows, such as ``defense=trades and robust>0.4``, parsed without evaluating code."""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from robustmaps.config import parse_surgery
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import parse_number

SHARES = frozenset(
    f"{part}{name}{bound}"
    for part in ("", "validation_")
    for name in ("clean", "robust")
    for bound in ("", "_low", "_high")
)
"""The columns that are accuracies."""
Row = Mapping[str, Any]
Condition = Callable[[Row], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|==|=|<|>)|(?P<bracket>[()])|"(?P<double>[^"]*)"|'(?P<single>[^']*)'
    |(?P<word>[^\s()<>=!"']+))""",
    re.VERBOSE,
)
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def parse_condition(text: str, columns: Collection[str]) -> Condition:
    """Parse comparisons (``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``) joined by ``and`` and ``or``, with brackets.

    A value is a number, a fraction, a word, or quoted text; that of an accuracy is a share, such as 0.4, or a
    percentage, such as 40%. ``and`` binds tighter than ``or``. A missing value is unequal to every value, and neither
    smaller nor larger.

    >>> keep = parse_condition("eps=8/255 and robust>0.4", ["eps", "robust"])
    >>> keep({"eps": 8 / 255, "robust": 0.5}), keep({"eps": 8 / 255, "robust": None})
    (True, False)

    Args:
        text: the condition.
        columns: the allowed names.

    Raises:
        InputError: the condition is invalid, or a column is unknown; the message suggests the nearest match.
    """
    parser = _Parser(text, _tokens(text), columns)
    condition = parser.either()
    if parser.rest:
        raise parser.error(f"{parser.rest[0][1]!r} is unexpected")
    return condition


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise InputError(f"where={text!r}: can't be parsed from {text[position:].strip()!r} on")
        kind = match.lastgroup or ""
        tokens.append(("text" if kind in ("double", "single") else kind, match[kind]))
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, text: str, tokens: list[tuple[str, str]], columns: Collection[str]) -> None:
        self.text, self.rest, self.columns = text, tokens, columns

    def error(self, reason: str) -> InputError:
        return InputError(f"where={self.text!r}: {reason}; expected comparisons such as 'defense=at and robust>0.4'")

    def either(self) -> Condition:
        parts = [self._both()]
        while self._take("word", "or"):
            parts.append(self._both())
        return lambda row: any(part(row) for part in parts)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._take("word", "and"):
            parts.append(self._one())
        return lambda row: all(part(row) for part in parts)

    def _one(self) -> Condition:
        if self._take("bracket", "("):
            inside = self.either()
            if not self._take("bracket", ")"):
                raise self.error("a bracket is not closed")
            return inside
        column, sign, value = self._next("word", "a column"), self._next("op", "a comparison"), self._value()
        name = column.replace("-", "_")
        if name not in self.columns:
            raise unknown("column", column, self.columns)
        if name in SHARES:
            _share(name, sign, value)  # said even where no run has one
        if name == "enlarge":  # runs have it in full: last is where=last
            value = str(parse_surgery(value))
        return lambda row: _compare(name, row.get(name), sign, value)

    def _take(self, kind: str, text: str) -> bool:
        if self.rest and self.rest[0][0] == kind and self.rest[0][1].lower() == text:
            self.rest.pop(0)
            return True
        return False

    def _next(self, kind: str, what: str) -> str:
        if not self.rest or self.rest[0][0] != kind:
            raise self.error(f"{what} is missing" + (f" before {self.rest[0][1]!r}" if self.rest else " at the end"))
        return self.rest.pop(0)[1]

    def _value(self) -> str:
        value = self.rest.pop(0)[1] if self.rest and self.rest[0][0] == "text" else self._next("word", "a value")
        return f"{value}%" if self._take("word", "%") else value


def _share(name: str, sign: str, value: str) -> float:
    """A share in [0, 1], or a percentage with its sign.

    Raises:
        InputError: no number, one above 1 without the sign, or more than 100 %.
    """
    if value.endswith("%"):
        share = parse_number(value.removesuffix("%").strip(), name) / 100
        if share > 1:
            raise InputError(f"{name}{sign}{value}: expected at most 100%")
        return share
    number = parse_number(value, name)
    if number > 1 or (number == 1 and sign == ">"):
        raise InputError(f"{name}{sign}{value}: a share lies in [0, 1]; did you mean {name}{sign}{value}%?")
    return number


def _compare(name: str, found: Any, sign: str, value: str) -> bool:
    if found is None:
        return sign == "!="
    if isinstance(found, bool) or not isinstance(found, int | float):
        if sign in _ORDER:
            raise InputError(f"{name}{sign}{value}: {name} is not a number; use = or !=")
        return (str(found).lower() == value.lower()) == (sign != "!=")
    number = _share(name, sign, value) if name in SHARES else parse_number(value, name)
    if sign in _ORDER:
        return bool(_ORDER[sign](found, number))
    return math.isclose(found, number, rel_tol=1e-9, abs_tol=1e-12) == (sign != "!=")

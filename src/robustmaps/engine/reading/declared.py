"""Dataclasses from plain values, by the types that their fields declare."""

import contextlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from robustmaps.engine.errors import InputError, unknown

T = TypeVar("T")

_SCALARS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    type(None): ((type(None),), "null"),
}


def declared(kind: type[T], values: Any, where: str = "") -> T:
    """A dataclass from keys and values, such as from JSON; keys that are not fields are left out.

    Fields may be declared as ``int``, ``float``, ``str``, ``bool``, ``Literal``, ``Any``, dataclasses, lists, tuples
    and mappings of these, and optional ones.

    Args:
        kind: the dataclass.
        values: the keys and values.
        where: what comes before a field's name in messages.

    Raises:
        InputError: a field is missing, or not of its type.
    """
    if not isinstance(values, Mapping):
        raise _unlike(where.rstrip(".") or kind.__name__, values, "keys and values")
    hints = hints_of(kind)  # type: ignore[arg-type] # types are hashable
    given = {}
    for item in fields(kind):  # type: ignore[arg-type] # mypy knows no bound for dataclasses
        name = f"{where}{item.name}"
        if item.name in values:
            given[item.name] = _converted(values[item.name], hints[item.name], name)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InputError(f"{name} is missing")
    return kind(**given)


@cache
def hints_of(kind: type, *, extras: bool = False) -> dict[str, Any]:
    """The declared types of a class's fields; kept, since reading a thousand runs asks for them very often.

    Args:
        kind: the class.
        extras: whether ``Annotated`` types stay as they are.
    """
    return get_type_hints(kind, include_extras=extras)


def _converted(value: Any, hint: Any, what: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _first_fitting(value, [one for one in inner if one is not type(None)], what)
    if origin is Literal:
        if value not in inner:
            raise unknown(what, value, map(str, inner))
        return value
    if origin in (list, tuple):
        return _sequence(value, origin, inner, what)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _unlike(what, value, "keys and values")
        return {key: _converted(one, inner[1], f"{what}[{key!r}]") for key, one in value.items()}
    if is_dataclass(hint):
        return declared(hint, value, f"{what}.")  # type: ignore[arg-type]
    accepted, expected = _SCALARS[hint]
    if type(value) not in accepted:
        raise _unlike(what, value, expected)
    return value


def _first_fitting(value: Any, hints: Sequence[Any], what: str) -> Any:
    for hint in hints[:-1]:
        with contextlib.suppress(InputError):
            return _converted(value, hint, what)
    return _converted(value, hints[-1], what)


def _sequence(value: Any, kind: Any, inner: tuple[Any, ...], what: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _unlike(what, value, "a list")
    if kind is list or inner[-1] is Ellipsis:
        hints = (inner[0],) * len(value)
    elif len(value) != len(inner):
        raise _unlike(what, value, f"{len(inner)} values")
    else:
        hints = inner
    # Verdicts of many images, of which nearly all are of the type.
    plain = {one for hint in set(hints) for one in _scalar_types(hint)}
    if len(set(hints)) == 1 and plain and {type(one) for one in value} <= plain:
        return kind(value)
    return kind(
        _converted(one, hint, f"{what}[{index}]") for index, (one, hint) in enumerate(zip(value, hints, strict=True))
    )


def _scalar_types(hint: Any) -> tuple[type, ...]:
    """The types of a hint that values have exactly; none where values have to be looked into."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    found = [_SCALARS[option][0] for option in options if option in _SCALARS]
    return tuple(one for each in found for one in each) if len(found) == len(options) else ()


def _unlike(what: str, value: Any, expected: str) -> InputError:
    shown = repr(value)
    return InputError(f"{what}={shown if len(shown) <= 60 else f'{shown[:57]}...'}: expected {expected}")

"""Configurations as flat keys and plain values, and as YAML. No PyTorch here."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import read_limited
from robustmaps.engine.numbers import as_fraction, parse_number
from robustmaps.engine.reading.declared import hints_of
from robustmaps.engine.reading.yaml_text import load_yaml

_MOST_BYTES = 1 << 22
_LARGEST = 1 << 64

_MOST_BYTES = 1 << 22

Section = TypeVar("Section")

Fraction = Annotated[float, "a number or a fraction such as 8/255"]
"""A float that is written as a fraction, on the command line and in YAML; any float may be read as one."""


def flat_values(config: Any) -> dict[str, Any]:
    """The values of a configuration by their flat keys."""
    flat: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        flat.update(flat_values(value) if is_dataclass(value) else {item.name: value})
    return flat


def to_mapping(config: Any) -> dict[str, Any]:
    """Flat keys and plain values, budgets as fractions; what `section_from_mapping` reads."""
    kind: Any = type(config)
    written = fraction_keys(kind)
    return {key: _written(value) if key in written else value for key, value in flat_values(config).items()}


@cache
def fraction_keys(kind: Any) -> frozenset[str]:
    """The keys of a configuration whose type is `Fraction`."""
    keys: set[str] = set()
    hints = hints_of(kind, extras=True)
    for name, hint in hints.items():
        if is_dataclass(hint):
            nested: Any = hint
            keys |= fraction_keys(nested)
        elif Fraction in (hint, *get_args(hint)):
            keys.add(name)
    return frozenset(keys)


def _written(value: float | None) -> float | str | None:
    if value is None:
        return None
    fraction = as_fraction(value)
    return fraction if "/" in fraction and parse_number(fraction) == value else value


def section_from_mapping(base: Section, values: Mapping[str, Any], where: str) -> Section:
    """A part of a configuration with some of its fields set from YAML.

    Raises:
        InputError: a value of the wrong type or out of its range.
    """
    kinds = hints_of(type(base), extras=True)  # type: ignore[arg-type] # types are hashable
    changed = {name: _convert(value, kinds[name], f"{where}: {name}") for name, value in values.items()}
    return replace(base, **changed)  # type: ignore[type-var]


def read_yaml(path: str | Path) -> str:
    """Read the text of a YAML file.

    Raises:
        InputError: the file is missing, is no text, or is too large for YAML.
    """
    return read_limited(path, _MOST_BYTES, "a YAML file")


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """Read a YAML file of keys and values.

    Raises:
        InputError: the file is missing, is not YAML, or is no mapping.
    """
    return parse_mapping(read_yaml(path), path)


def parse_mapping(text: str, path: str | Path) -> dict[Any, Any]:
    """The keys and values of a YAML text; ``path`` is for messages.

    Raises:
        InputError: the text is not YAML, or is no mapping.
    """
    try:
        values = load_yaml(text)
    except ValueError as error:
        raise InputError(f"{path}: not valid YAML ({error})") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values such as 'epochs: 20', not a {type(values).__name__}")
    return values


def _convert(value: Any, kind: Any, what: str) -> Any:
    """A YAML value as the type of its field."""
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(what, value, map(str, get_args(kind)))
        return value
    if get_origin(kind) is tuple:
        parts = value if isinstance(value, list) else str(value).split(",")
        return tuple(parse_number(part, what) for part in parts)
    if kind in (float, Fraction):
        return parse_number(value, what)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # strides: 1122 and enlarge_at: 0.8 are numbers to YAML
    if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or abs(value) > _LARGEST)):
        raise InputError(f"{what}={value!r}: expected {_A_TYPE[kind]}")
    return value


_A_TYPE = {int: "a whole number", str: "text", bool: "true or false"}

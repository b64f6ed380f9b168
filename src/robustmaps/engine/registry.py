"""Rows by name: each is next to its class, in a built-in module or another package, or registered by a program.

Lists read the literal arguments of a row from the source of its module, so that a command can list rows without
importing PyTorch; the module is imported when the row is used.
"""

import ast
import importlib
import importlib.util
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.abc import InspectLoader
from typing import Any, Generic, Protocol, TypeVar

from robustmaps.engine.errors import InputError, nearest, unknown
from robustmaps.engine.numbers import parse_number


class Row(Protocol):
    """The common interface of rows."""

    @property
    def name(self) -> str:
        """The name, unique among rows of the same kind."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Listed:
    """The part of a row that is known without importing its module.

    Attributes:
        name: the name on the command line.
        summary: a one-line description.
        parameters: the description of each option.
        values: all arguments of the row that are literals.
        module: the module of the row; empty if registered by a program.
        origin: the package that provides it, in words; empty for built-in rows.
    """

    name: str
    summary: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    origin: str = ""


class Registry(Generic[R]):
    """The rows of one kind.

    Rows come from three sources: ``ROW`` or ``ROWS`` in the modules of a built-in package; `register`; and modules
    that other installed packages declare as entry points.

    Args:
        package: the built-in package; for ``robustmaps.data.sources``, the entry point group is ``robustmaps.sources``.
        kind: the kind of things the rows describe, for messages.
        row: the class of the rows.
        expand: returns the rows by which a row can be found, including itself.
    """

    def __init__(
        self,
        package: str,
        kind: str,
        row: type[R],
        expand: Callable[[Listed], Iterable[Listed]] = lambda row: (row,),
    ) -> None:
        self._package, self._kind, self._row, self._expand = package, kind, row, expand
        self._registered: dict[str, R] = {}

    def register(self, row: R) -> R:
        """Add a row at run time; an installed package declares its module as an entry point instead.

        Raises:
            InputError: the value is not a row, or its name is taken.
        """
        if not isinstance(row, self._row):
            raise InputError(f"{row!r}: expected a value of {self._row.__name__}")
        if row.name in self._ours or self._registered.get(row.name, row) != row:
            raise InputError(f"{self._kind} {row.name!r}: the name is taken; choose another one")
        self._registered[row.name] = row
        return row

    def listed(self, *, warn: bool = True) -> dict[str, Listed]:
        """All rows by name; packages whose rows can't be read are omitted, with a warning unless ``warn`` is False."""
        for error in self._plugins[1] if warn else ():
            warnings.warn(str(error), stacklevel=2)
        return {**self._known, **self._plugins[0]}

    def find(self, name: str) -> Listed:
        """A row by name; other packages are searched only if no built-in row has that name.

        Raises:
            InputError: no such row; the message suggests the nearest match and lists packages whose rows can't be read.
        """
        found = self._known.get(name) or self._plugins[0].get(name)
        if found is not None:
            return found
        error = unknown(self._kind, name, self.listed(warn=False))
        for note in self._plugins[1]:
            error.add_note(f"note: {note}")
        raise error

    def row(self, name: str) -> R:
        """The row itself; imports its module.

        Raises:
            InputError: no such row, or its module can't be imported.
        """
        listed = self.find(name)
        if not listed.module:
            return self._registered[name]
        return next(row for row in self._imported(listed.module, listed.origin) if row.name == name)

    def rows(self) -> Iterator[R]:
        """All rows themselves; packages whose rows can't be imported are omitted, with a warning."""
        for name in self.listed():
            try:
                row = self.row(name)
            except InputError as error:
                warnings.warn(str(error), stacklevel=2)
            else:
                yield row

    @property
    def _known(self) -> dict[str, Listed]:
        return {**self._ours, **self._by_name(map(vars, self._registered.values()))}

    @cached_property
    def _ours(self) -> dict[str, Listed]:
        path = importlib.import_module(self._package).__path__
        modules = sorted(f"{self._package}.{each.name}" for each in pkgutil.iter_modules(path))
        rows = (self._read(module) for module in modules if "\nROW" in _source(module))
        return {name: row for each in rows for name, row in each.items()}

    @cached_property
    def _plugins(self) -> tuple[dict[str, Listed], list[InputError]]:
        """The rows of other packages, and errors for those that can't be read."""
        found: dict[str, Listed] = {}
        broken = []
        from importlib.metadata import entry_points  # a slow import, avoided unless other packages are needed

        for point in entry_points(group=f"robustmaps.{self._package.rpartition('.')[2]}"):
            origin = f"the package {point.dist.name} {point.dist.version}" if point.dist else "a package"
            try:
                rows = self._read(point.module, origin)
                for name in rows.keys() & {*self._ours, *found}:
                    raise InputError(f"{self._kind} {name!r} of {origin}: the name is taken")
                found.update(rows)
            except InputError as error:
                broken.append(error)
        return found, broken

    def _by_name(self, rows: Iterable[Mapping[str, Any]], module: str = "", origin: str = "") -> dict[str, Listed]:
        shown = ("name", "summary", "parameters")
        listed = (
            Listed(**{key: v[key] for key in shown if key in v}, values=v, module=module, origin=origin) for v in rows
        )
        return {each.name: each for row in listed for each in self._expand(row)}

    def _read(self, module: str, origin: str = "") -> dict[str, Listed]:
        """The rows of a module, from its source if that suffices."""
        try:
            rows = _written(_source(module))
        except Exception as error:
            raise self._unreadable(module, origin, error) from error
        return self._by_name(rows or map(vars, self._imported(module, origin)), module, origin)

    def _imported(self, module: str, origin: str) -> list[R]:
        try:
            loaded = importlib.import_module(module)
            rows = [*getattr(loaded, "ROWS", ()), *([loaded.ROW] if hasattr(loaded, "ROW") else [])]
        except Exception as error:
            if not origin:
                raise
            raise self._unreadable(module, origin, error) from error
        if not rows or not all(isinstance(row, self._row) for row in rows):
            raise self._unreadable(module, origin, TypeError(f"expected ROW or ROWS, of {self._row.__name__}"))
        return rows

    def _unreadable(self, module: str, origin: str, error: Exception) -> InputError:
        why = f"{type(error).__name__}: {error}"
        return InputError(f"{origin or self._package} has {self._kind}s in {module}, which can't be used ({why})")


def check_taken(
    rows: Iterable[Listed],
    given: Mapping[str, object],
    common: Iterable[str] = (),
    everywhere: Callable[[], Mapping[str, Iterable[str]]] = dict,
) -> None:
    """Refuse options that none of the rows takes.

    Args:
        rows: the chosen rows.
        given: the given options.
        common: options that all rows take, for the message.
        everywhere: returns the options of all rows by name, for the message.

    Raises:
        InputError: an option would have no effect; the message lists the valid ones, with the nearest match or who
            takes the option.
    """
    chosen = list(rows)
    for key, value in given.items():
        if any(key in row.parameters for row in chosen):
            continue
        who = " and ".join(row.name for row in chosen)
        takes = "; ".join(f"{row.name} takes {', '.join([*common, *row.parameters])}" for row in chosen)
        have = "has" if len(chosen) == 1 else "have"
        near = nearest(key, [name for row in chosen for name in row.parameters])
        others = [name for name, options in everywhere().items() if key in options]
        mend = f"did you mean {near[0]}?" if near else "leave it out"
        if others:
            mend = f"leave it out, or use {' or '.join(others)}"
        raise InputError(f"{key}={value!r}: {who} {have} no such parameter; {mend} ({takes})")


def parse_parameters(text: str | None, what: str) -> dict[str, Any]:
    """Parameters written as ``NAME=VALUE,NAME=VALUE``; values are numbers, true, false or text.

    In ``OWNER.NAME=VALUE``, the owner stays as it is written.

    >>> parse_parameters("tries=3, shape=round, fast=true", "attack_parameters")
    {'tries': 3, 'shape': 'round', 'fast': True}

    Raises:
        InputError: a part has no value, or a parameter two.
    """
    values: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"{what}={text!r}: expected NAME=VALUE, several with commas, such as tries=3,shape=round")
        owner, dot, option = name.rpartition(".")
        key = f"{owner}{dot}{option.replace('-', '_')}"
        if key in values:
            raise InputError(f"{what}={text!r}: {name} is given twice; expected one value")
        values[key] = _value(value)
    return values


def written(value: object) -> str:
    """A value as `parse_parameters` reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return parse_number(text)
    except InputError:
        return text


def _source(module: str) -> str:
    """The source of a module, without importing it; empty if there is none."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    return (isinstance(spec.loader, InspectLoader) and spec.loader.get_source(module)) or ""


def _written(source: str) -> list[dict[Any, Any]]:
    """The arguments of the rows that a module assigns to ``ROW`` or ``ROWS``, None for those that are not literals.

    Empty if an argument that lists show is not a literal, so that the module must be imported.
    """
    assigned: dict[str, ast.expr] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                assigned[name] = value
    rows = [*getattr(assigned.get("ROWS"), "elts", ()), *([assigned["ROW"]] if "ROW" in assigned else [])]
    found = [{k.arg: _literal(k.value, assigned) for k in getattr(row, "keywords", ())} for row in rows]
    shown = ("name", "summary", "parameters")
    whole = all("name" in row and None not in row and None not in [row.get(key, "") for key in shown] for row in found)
    return found if whole else []


def _literal(value: ast.expr, assigned: Mapping[str, ast.expr]) -> Any:
    try:
        return ast.literal_eval(assigned[value.id] if isinstance(value, ast.Name) else value)
    except (KeyError, ValueError, TypeError, SyntaxError):
        return None

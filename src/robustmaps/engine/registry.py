"""Rows by name: each stands beside its class, in a module of ours or of another package, or is registered by a program.

The literal parts of a row (name, summary, parameters) are read from the source of its module, so that a command can
list what there is without importing PyTorch; the module is imported when the row is used.
"""

import ast
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import parse_number

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Row(Protocol):
    """What rows have in common."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        ...

    @property
    def parameters(self) -> Mapping[str, str]:
        """What each option that it takes means."""
        ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Listed:
    """A row as far as it is known without importing its module.

    Attributes:
        name: the name on the command line.
        summary: what it is, in a line.
        parameters: what each option that it takes means.
        values: all arguments of the row that are written out as literals.
        module: where the row stands; empty where a program registered it.
        origin: the package that brought it, in words; empty for ours.
    """

    name: str
    summary: str
    parameters: Mapping[str, str]
    values: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    origin: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any], module: str = "", origin: str = "") -> "Listed":
        """From a row's arguments or attributes."""
        return cls(values["name"], values["summary"], values.get("parameters", {}), values, module, origin)


class Registry(Generic[R]):
    """The rows of one kind.

    Rows come from three places: ``ROW`` or ``ROWS`` in the modules of ``package``; `register`; and modules that other
    installed packages name as entry points of the group ``package``.

    Args:
        package: such as ``robustmaps.attacks``.
        folder: where the package's modules are.
        kind: what the rows describe, for messages.
        row: their class.
        variant: what a row is known as besides, None where there is nothing.
    """

    def __init__(
        self,
        package: str,
        folder: Path,
        kind: str,
        row: type[R],
        variant: Callable[[Listed], Listed | None] = lambda row: None,  # noqa: ARG005
    ) -> None:
        self._package, self._folder, self._kind, self._row = package, folder, kind, row
        self._variant = variant
        self._registered: dict[str, R] = {}

    def register(self, row: R) -> R:
        """Add a row while the program runs; returns it.

        Raises:
            InputError: it is not a row, or its name is taken.
        """
        if not isinstance(row, self._row):
            raise InputError(f"{row!r}: expected a value of {self._row.__name__}")
        if row.name in self._ours or self._registered.get(row.name, row) != row:
            raise InputError(f"{self._kind} {row.name!r}: the name is taken; choose another one")
        self._registered[row.name] = row
        return row

    def listed(self, *, warn: bool = True) -> dict[str, Listed]:
        """All rows by name; a package whose rows can't be read is left out, with a warning unless ``warn`` is off."""
        for error in self._plugins[1].values() if warn else ():
            warnings.warn(str(error), stacklevel=2)
        return self._with_variants({**self._known, **self._plugins[0]})

    def find(self, name: str) -> Listed:
        """A row by name; other packages are looked at only where we have none of that name.

        Raises:
            InputError: no such row, with the nearest match, or a package whose rows can't be read.
        """
        known = self._with_variants(self._known)
        if name in known:
            return known[name]
        found, broken = self._plugins
        plugins = self._with_variants(found)
        if name in plugins:
            return plugins[name]
        if name in broken:
            raise broken[name]
        error = unknown(self._kind, name, [*known, *plugins])
        for note in broken.values():
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

    @property
    def _known(self) -> dict[str, Listed]:
        return {**self._ours, **{name: Listed.of(vars(row)) for name, row in self._registered.items()}}

    def _with_variants(self, rows: Mapping[str, Listed]) -> dict[str, Listed]:
        variants = [row for row in map(self._variant, rows.values()) if row is not None]
        return {**rows, **{row.name: row for row in variants}}

    @cached_property
    def _ours(self) -> dict[str, Listed]:
        found = {}
        for file in sorted(self._folder.glob("*.py")):
            source = file.read_text(encoding="utf-8")
            if "\nROW" in source:
                module = f"{self._package}.{file.stem}"
                found.update({row.name: row for row in self._read(module, source, "")})
        return found

    @cached_property
    def _plugins(self) -> tuple[dict[str, Listed], dict[str, InputError]]:
        """What other packages bring, and by the entry point's name why a package's can't be read."""
        found: dict[str, Listed] = {}
        broken: dict[str, InputError] = {}
        from importlib.metadata import entry_points  # where no other package is asked for, this is not waited for

        for point in entry_points(group=self._package):
            try:
                for row in self._read(point.module, None, _origin(point)):
                    if row.name in self._ours or row.name in found:
                        raise InputError(f"{self._kind} {row.name!r} of {_origin(point)}: the name is taken")
                    found[row.name] = row
            except InputError as error:
                broken[point.name] = error
        return found, broken

    def _read(self, module: str, source: str | None, origin: str) -> list[Listed]:
        """The rows of a module, by its source where that suffices."""
        try:
            rows = list(_written(source if source is not None else _source(module)))
        except Exception as error:
            raise self._unreadable(module, origin, error) from error
        if not rows or not all({"name", "summary"} <= set(values) for values in rows):
            rows = [vars(row) for row in self._imported(module, origin)]
        return [Listed.of(values, module, origin) for values in rows]

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


def check_taken(rows: Iterable[Listed], given: Mapping[str, object], common: Iterable[str] = ()) -> None:
    """Refuse options that none of some rows takes.

    Args:
        rows: what was chosen.
        given: options that were given.
        common: options that all rows take, for the message.

    Raises:
        InputError: an option would be without effect; says what is taken.
    """
    chosen = list(rows)
    for key, value in given.items():
        if any(key in row.parameters for row in chosen):
            continue
        who = " and ".join(row.name for row in chosen)
        takes = "; ".join(f"{row.name} takes {', '.join([*common, *row.parameters])}" for row in chosen)
        have = "has" if len(chosen) == 1 else "have"
        raise InputError(f"{key}={value!r}: {who} {have} no such parameter; leave it out ({takes})")


def parse_parameters(text: str | None, what: str) -> dict[str, Any]:
    """Parameters written as ``NAME=VALUE,NAME=VALUE``; values are numbers, true, false or text.

    >>> parse_parameters("tries=3, shape=round, fast=true", "attack_parameters")
    {'tries': 3, 'shape': 'round', 'fast': True}

    Raises:
        InputError: a part without a value.
    """
    values: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"{what}={text!r}: expected NAME=VALUE, several with commas, such as tries=3,shape=round")
        values[name.replace("-", "_")] = _value(value)
    return values


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


def _origin(point: "EntryPoint") -> str:
    return "a package" if point.dist is None else f"the package {point.dist.name} {point.dist.version}"


def _source(module: str) -> str:
    """The source of a module that need not be imported; empty where there is none."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    return Path(spec.origin).read_text(encoding="utf-8") if spec.has_location and spec.origin else ""


def _written(source: str) -> Iterator[dict[str, Any]]:
    """The literal arguments of the rows that a module assigns to ``ROW`` or ``ROWS``."""
    literals: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value = statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            name, value = statement.target.id, statement.value
        else:
            continue
        if name in ("ROW", "ROWS"):
            for call in value.elts if isinstance(value, ast.Tuple | ast.List) else [value]:
                yield _literal_arguments(call, literals) if isinstance(call, ast.Call) else {}
        else:
            literals.update(_literal(name, value, literals))


def _literal_arguments(call: ast.Call, literals: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a row; none where one is missing that a list shows, so that the module has to be imported."""
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is not None:
            found.update(_literal(keyword.arg, keyword.value, literals))
    shown = {keyword.arg for keyword in call.keywords} & {"name", "summary", "parameters", None}
    return found if shown <= set(found) else {}


def _literal(name: str, value: ast.expr, literals: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The name with its value; nothing where that is no literal and no name of one."""
    if isinstance(value, ast.Name):
        return [(name, literals[value.id])] if value.id in literals else []
    try:
        return [(name, ast.literal_eval(value))]
    except (ValueError, TypeError, SyntaxError):
        return []

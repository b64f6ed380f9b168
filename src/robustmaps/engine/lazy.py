"""Public names that are imported when they are first used, so that ``robustmaps --help`` need not wait for PyTorch."""

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def lazy(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package (PEP 562) that imports its names under ``if TYPE_CHECKING:``.

    Args:
        package: the package's ``__name__``.
        file: the package's ``__file__``, whose imports for type checkers are made when a name is first asked for.
    """
    origin = {name: module for module, name in _imported(file)}

    def getattribute(name: str) -> Any:
        if name not in origin:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if origin[name] == package:  # a module that is public itself
            value: Any = importlib.import_module(f"{package}.{name}")
        else:
            value = getattr(importlib.import_module(origin[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattribute, lambda: sorted(origin)


def _imported(file: str) -> Iterator[tuple[str, str]]:
    """Modules and names of the imports for type checkers."""
    for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom) and statement.module:
                    yield from ((statement.module, alias.name) for alias in statement.names)

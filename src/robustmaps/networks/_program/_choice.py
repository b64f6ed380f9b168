"""Which network weights of somebody's own function are opened as: what the function makes now, or their program."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError
from robustmaps.engine.text import first_line
from robustmaps.engine.trust import is_trusted
from robustmaps.evaluation import Identity, agree
from robustmaps.networks._opened import OpenedNetwork
from robustmaps.networks._program._file import PROGRAM_FILE, read_program
from robustmaps.networks._program._module import Program
from robustmaps.training import RUN_WEIGHTS, Weights

WEIGHTS, EXPORTED = "weights.safetensors", "model.safetensors"
"""The weights' file of a saved enlargement, and that of an export."""
_WITH_PROGRAM = frozenset({*(f"{which}.safetensors" for which in RUN_WEIGHTS), WEIGHTS, EXPORTED})


def program_beside(weights: Path) -> Path | None:
    """The program in the folder of weights that this package wrote; None if there is none."""
    path = weights.parent / PROGRAM_FILE
    return path if weights.name in _WITH_PROGRAM and os.path.lexists(path) else None


def with_program(
    described: Callable[[Program | None], OpenedNetwork], spec: str, loaded: Weights, weights: Path, path: Path
) -> OpenedNetwork:
    """The network that code makes, if it is trusted, there and the one that was trained; else that of the program.

    Args:
        described: what the weights' header describes, with a program in place of what its code makes.
        spec: the network's name.
        loaded: the weights.
        weights: their file.
        path: the program.

    Raises:
        InputError: the program can't be opened either.
    """
    graph, constants = read_program(path)

    def program(why: str) -> OpenedNetwork:
        try:
            return replace(described(Program(graph, {**constants, **loaded.tensors}, why)), program=why)
        except Damaged:
            raise
        except Exception as error:  # of many types, for operations whose arguments nobody wrote
            text = str(error) if isinstance(error, InputError) else first_line(error)
            raise InputError(f"{path}: {text}") from error

    code, why = None, f"{spec} is not run without --allow-code"
    if is_trusted(spec):
        try:
            code = described(None)
        except Exception as error:  # noqa: BLE001 - whatever the code of somebody else raises
            why = _short(error, weights)
    if code is not None:
        why = f"{spec} makes another network now"
        theirs = Identity.of(program(why).model, graph.image).computes
        if agree(Identity.of(code.model, graph.image).computes, theirs):
            return code
    return program(why)


def _short(error: Exception, weights: Path) -> str:
    if isinstance(error, InputError):
        return str(error).removeprefix(f"{weights}: ")
    return f"{type(error).__name__}: {first_line(error)}"

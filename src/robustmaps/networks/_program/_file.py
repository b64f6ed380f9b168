"""A program beside its weights: safetensors with the operations in the header; reading it runs nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.plain import loads
from robustmaps.engine.text import first_line
from robustmaps.engine.trust import names_code
from robustmaps.networks._program._graph import Graph
from robustmaps.training import PROGRAM, read_weights, save_weights

PROGRAM_FILE = f"{PROGRAM}.safetensors"
"""Its name, beside the weights."""


def keep_program(path: Path, model: nn.Module, shape: Sequence[int], spec: str) -> str | None:
    """Write what somebody's own network computes; why that is not possible, or None.

    Args:
        path: the file.
        model: the network, which is left as it is.
        shape: (C, H, W) of the images, which the program has.
        spec: the network's name; other networks need no program.
    """
    if not names_code(spec):
        return None
    try:
        save_program(path, model, shape, spec)
    except InputError as error:
        return f"opens only where {spec} is at hand: {error}"
    return None


def save_program(path: Path, model: nn.Module, shape: Sequence[int], spec: str) -> None:
    """Write the program of a network, after it was tried.

    Args:
        path: the file.
        model: the network, which is left as it is.
        shape: (C, H, W) of the images, which the program has.
        spec: the network's name.

    Raises:
        InputError: it has none, with the reason.
    """
    # Not needed by anybody who only opens one; it takes a second to import.
    from robustmaps.networks._program._exporting import export_program

    try:
        graph, constants = export_program(model, shape, spec)
    except InputError:
        raise
    except Exception as error:  # whatever a network of somebody else leads to: the rest is written all the same
        raise InputError(f"it can't be exported ({type(error).__name__}: {first_line(error)})") from error
    _write(path, graph, constants)


def copy_program(source: Path, path: Path) -> None:
    """Write a program again, beside other weights of the same network.

    Raises:
        InputError: see `read_program`.
    """
    _write(path, *read_program(source))


def _write(path: Path, graph: Graph, constants: Mapping[str, Tensor]) -> None:
    save_weights(path, constants, {PROGRAM: json.dumps(graph.to_plain(), allow_nan=False)})


def read_program(path: Path) -> tuple[Graph, Mapping[str, Tensor]]:
    """What `save_program` wrote.

    Raises:
        InputError: it is damaged, is no program, or has an operation that a program may not have.
    """
    loaded = read_weights(path)
    try:
        return Graph.from_plain(loads(loaded.description[PROGRAM])), loaded.tensors
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # whatever plain values of other types lead to
        raise InputError(f"{path}: not a program written by robustmaps") from error

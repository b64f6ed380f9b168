"""A program in the folder of its run: safetensors with the operations in the header; reading it runs nothing."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.plain import loads
from robustmaps.engine.text import first_line
from robustmaps.networks._program._graph import Graph
from robustmaps.training import PROGRAM, RunFolder, read_weights


def save_program(folder: RunFolder, model: nn.Module, data: Dataset, spec: str) -> None:
    """Write the program of a trained network beside its weights, after it was tried.

    Args:
        folder: the run's.
        model: the network, which is left as it is.
        data: the images it was trained on, whose size the program has.
        spec: the network's name.

    Raises:
        InputError: it has none, with the reason.
    """
    # Not needed by anybody who only opens one; it takes a second to import.
    from robustmaps.networks._program._exporting import export_program

    try:
        graph, constants = export_program(model, (data.in_channels, *data.image_size), spec)
    except InputError:
        raise
    except Exception as error:  # whatever a network of somebody else leads to: the run is finished all the same
        raise InputError(f"it can't be exported ({type(error).__name__}: {first_line(error)})") from error
    folder.save_weights(PROGRAM, constants, {PROGRAM: json.dumps(graph.to_plain(), allow_nan=False)})


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

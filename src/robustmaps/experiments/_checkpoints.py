"""Trained networks from files: our own, which describe themselves, and weights for a user's network."""

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import sha256
from robustmaps.evaluation import weights_sha256
from robustmaps.experiments._config import DataConfig
from robustmaps.experiments._run import DESCRIPTION, load_data
from robustmaps.training import RunFolder, load_weights


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, and what is known of it.

    Attributes:
        path: the weights' file; None for a network that brings its own.
        folder: where its evaluations are written.
        name: for people.
        architecture: the network's name.
        model: the network, on the CPU.
        data: the images it was trained on, as a configuration; None where unknown.
        norm, eps: the budget it was trained for.
        sha256: of the weights' file, or of the weights.
    """

    path: Path | None
    folder: Path
    name: str
    architecture: str
    model: nn.Module
    data: DataConfig | None
    norm: str
    eps: float
    sha256: str


def data_for(
    checkpoint: Checkpoint, data: str | Dataset | None, decoding: Callable[[int, int | None], None] | None = None
) -> Dataset:
    """The images that are given, or those that the network was trained on.

    Raises:
        InputError: none are given, and none are known.
    """
    if isinstance(data, Dataset):
        return data
    if data is None and checkpoint.data is None:
        raise InputError("data: needed for a network that is no run of ours, such as --data cifar10")
    config = checkpoint.data or DataConfig()
    return load_data(config if data is None else replace(config, data=data), decoding)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a run folder's best weights, or a weights file of ours.

    Raises:
        InputError: there is no such file, or it does not describe its network.
    """
    weights_path = RunFolder(path).best if Path(path).is_dir() else Path(path)
    if not weights_path.exists():
        hint = "it is no finished run; train it to the end first" if Path(path).is_dir() else "there is no such file"
        raise InputError(f"{path}: {hint} (expected {weights_path.name})")
    weights, description = load_weights(weights_path)
    try:
        about: dict[str, Any] = json.loads(description[DESCRIPTION])
        model = models.create(**about["model"])
        data = DataConfig(**about["data"])
        norm, eps = str(about["norm"]), float(about["eps"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{weights_path}: its header does not describe a network written by robustmaps; for another network's "
            "weights give --model-from package.module:function as well"
        ) from error
    name = str(about["model"]["name"])
    _fill(model, weights, weights_path, name)
    run = weights_path.resolve().parent
    folder = RunFolder(weights_path.parent).evaluations
    return Checkpoint(weights_path, folder, run.name, name, model, data, norm, eps, sha256(weights_path))


def open_network(function: str, weights: str | Path | None = None) -> Checkpoint:
    """A user's own network: what ``package.module:function`` returns, with weights from a safetensors file.

    Args:
        function: names a function or class that takes no arguments and returns an `nn.Module`; the current folder is
            searched too.
        weights: its weights; None where the function loads them itself.

    Raises:
        InputError: no such module or function, it returns something else, or the weights don't fit.
    """
    model = make_network(function)
    path = Path(weights) if weights is not None else None
    if path is not None:
        if path.suffix != ".safetensors":
            raise InputError(
                f"{path}: expected a .safetensors file, which runs no code when it is read; "
                "safetensors.torch.save_file(model.state_dict(), PATH) writes one"
            )
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
        _fill(model, load_weights(path)[0], path, function)
    name = function.partition(":")[2]
    digest = sha256(path) if path is not None else weights_sha256(model)
    return Checkpoint(path, Path("evaluation") / name, name, name, model, None, "linf", 8 / 255, digest)


def make_network(function: str) -> nn.Module:
    """What ``package.module:function`` returns when it is called without arguments; the current folder is searched too.

    Raises:
        InputError: no such module or function, it raises, or it returns something else.
    """
    module, _, name = function.partition(":")
    if not module or not name:
        raise InputError(f"{function!r}: expected package.module:function")
    here = str(Path.cwd())
    # A console script does not look for modules where it is called.
    sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(f"{function}: no module named {error.name!r} here or on PYTHONPATH") from error
    finally:
        sys.path.remove(here)
    make = getattr(imported, name, None)
    if not callable(make):
        names = [key for key, value in vars(imported).items() if not key.startswith("_") and callable(value)]
        raise unknown(f"function of {module}", name, names)
    network = make()
    if not isinstance(network, nn.Module):
        raise InputError(f"{function}: returned {type(network).__name__}, expected an nn.Module")
    return network


def _fill(model: nn.Module, weights: Any, path: Path, name: str) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: the weights don't fit {name} ({error})") from error

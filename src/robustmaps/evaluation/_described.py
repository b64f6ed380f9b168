"""What decides about a network's outputs besides its weights: code and plain values, wherever they are kept."""

import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustmaps.engine.modes import hidden_modules
from robustmaps.evaluation._fingerprints import weights_sha256

BUILT_IN = ("torch", "robustmaps")

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# What is hashed with the weights, changed by the mode, or numbered differently in each process.
_LEFT_OUT = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"})
_DEEPEST, _MOST = 12, 1000
_NO_CODE_OF_ONE_S_OWN = frozenset({*BUILT_IN, "builtins", "numpy", "torchvision", "timm", "transformers", "pytorchcv"})


def described(model: nn.Module) -> dict[str, str]:
    """Plain values and code that a network uses, by where they are kept.

    The values are attributes of its modules and their classes, what is in containers, objects, tensors, closures and
    partial functions there, hooks, and globals that its functions name. Code of PyTorch, the standard library and
    libraries of networks is left out. Another version of Python compiles the same source to other code.
    """
    hidden = hidden_modules(model)
    found: dict[str, str] = {f"{path} weights": weights_sha256(network) for path, network in hidden.items()}
    networks = {"": model, **hidden}
    walk = _Walk({id(module) for network in networks.values() for module in network.modules()})
    for top, network in networks.items():
        for path, module in network.named_modules():
            for kind in type(module).__mro__:
                found.update(walk.of(kind, f"{top} {path}<{kind.__qualname__}>"))
            for name, value in vars(module).items():
                if name not in _LEFT_OUT:
                    found.update(walk.of(value, f"{top} {path}.{name}"))
    return found


class _Walk:
    """One look at everything that can be reached; each object once."""

    def __init__(self, seen: set[int]) -> None:
        self._seen = seen
        self._kept: list[object] = []  # so that no other object gets the identity of one that was seen

    def of(self, value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
        """Places and texts."""
        if isinstance(value, _PLAIN):
            yield path, repr(value)
            return
        if depth > _DEEPEST or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, Tensor | np.ndarray):
            yield path, _digest(value)
        elif isinstance(value, nn.Module):
            yield path, type(value).__qualname__
        else:
            for name, part in islice(_parts(value), _MOST):
                yield from self.of(part, path + name, depth + 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container, function or object is made of, with names."""
    if isinstance(value, Mapping):
        for number, (key, one) in enumerate(value.items()):
            # Hooks are numbered by a count of the process.
            yield f"[{key!r}]" if isinstance(key, str) else f"[{number}]", one
    elif isinstance(value, list | tuple):
        yield from ((f"[{number}]", one) for number, one in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f"[{number}]", one) for number, one in enumerate(sorted(value, key=repr)))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, MethodType):
        yield from ((".self", value.__self__), (".function", value.__func__))
    elif isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, CodeType):
        yield from ((".code", value.co_code), (".names", value.co_names), (".constants", value.co_consts))
    elif isinstance(value, BuiltinFunctionType):
        yield ".name", value.__name__
    elif isinstance(value, staticmethod | classmethod):
        yield ".function", value.__func__
    elif isinstance(value, property):
        yield ".read", value.fget
    elif isinstance(value, type):
        if _is_own(value.__module__):
            yield from ((f".{name}", one) for name, one in vars(value).items() if not name.startswith("__"))
    elif not isinstance(value, ModuleType) and _is_own(type(value).__module__):
        yield ".class", type(value)
        yield from ((f".{name}", one) for name, one in getattr(value, "__dict__", {}).items())


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    if not _is_own(function.__module__):
        yield ".name", f"{function.__module__}.{function.__qualname__}"
        return
    yield from ((".code", function.__code__), (".defaults", function.__defaults__), (".only", function.__kwdefaults__))
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f" {name}", value
        if isinstance(value, ModuleType) and _is_own(value.__name__):
            yield from ((f" {name}.{each}", vars(value)[each]) for each in sorted(names & vars(value).keys()))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a variable that is not assigned yet
            yield f" {name}", cell.cell_contents


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_own(module: str | None) -> bool:
    top = (module or "").partition(".")[0]
    return top not in _NO_CODE_OF_ONE_S_OWN and top not in sys.stdlib_module_names


def _digest(values: Tensor | np.ndarray) -> str:
    if isinstance(values, np.ndarray):
        return hashlib.sha256(repr((values.dtype, values.shape)).encode() + values.tobytes()).hexdigest()
    try:
        data = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantised or without values
        return repr(values)
    return hashlib.sha256(repr((values.dtype, values.shape)).encode() + data).hexdigest()

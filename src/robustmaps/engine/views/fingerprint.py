"""What a network is besides its registered parameters and buffers: structure and plain attributes."""

import functools
import zlib
from collections.abc import Collection, Iterator, Mapping
from types import FunctionType, MemberDescriptorType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# What training changes all the time, or what is copied with the weights.
_LEFT_OUT = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "momentum"})
_EXACT = frozenset({bool, int, str, type(None)})
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MOST_BYTES = 1 << 24


def attributes(model: nn.Module) -> list[object]:
    """Structure and plain attributes of all modules, comparable with ``==``; tensors there count by their values, too.

    A copy of the network is out of date as soon as this differs, even if parameters and buffers are copied again.
    """
    # What is registered is copied with the weights, also where plain attributes refer to it.
    registered = (*model.modules(), *model.parameters(), *model.buffers())
    seen = {id(each): number for number, each in enumerate(registered)}
    return list(_of_modules(model, seen))


def _of_modules(model: nn.Module, seen: dict[int, int]) -> Iterator[object]:
    for path, module in model.named_modules(remove_duplicate=False):
        yield path
        yield id(type(module))
        yield id(getattr(type(module), "forward", None))  # scripted classes have none
        for name, value in vars(module).items():
            if name in _LEFT_OUT and (name != "momentum" or isinstance(module, _NormBase)):
                continue
            if type(value) in _EXACT:
                yield name, type(value), value
            elif not (isinstance(value, dict) and not value):  # most hooks
                yield name
                yield from _parts(value, seen)


def _parts(value: Any, seen: dict[int, int]) -> Iterator[object]:
    """The value, or what is in it: whatever a deep copy copies, and a change in place would leave behind."""
    if isinstance(value, _PLAIN):
        yield type(value)
        yield repr(value) if isinstance(value, float | complex) else value  # NaN equals itself as text
        return
    if id(value) in seen:
        yield "again", seen[id(value)]
        return
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        yield from _of_tensor(value)
        yield _checksum(value)  # versions do not count what is written through `data` or a NumPy array
    elif isinstance(value, np.ndarray):
        yield id(value), value.shape
        yield None if value.dtype.hasobject or value.nbytes > _MOST_BYTES else zlib.crc32(value.tobytes())
    elif isinstance(value, bytearray):
        yield bytes(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key) if isinstance(key, _PLAIN) else id(key)
            yield from _parts(item, seen)
        yield "}"
    elif isinstance(value, Collection) and type(value).__module__ in ("builtins", "collections"):
        for item in value:
            yield from _parts(item, seen)
        yield "]"
    elif isinstance(value, nn.Module):  # in a plain list: its weights are copied with the others, unless it is another
        for tensor in (*value.parameters(), *value.buffers()):
            if id(tensor) not in seen:
                seen[id(tensor)] = len(seen)
                yield from _of_tensor(tensor)
        yield from _of_modules(value, seen)
    else:
        yield id(value)
        yield from _inside(value, seen)


def _inside(value: object, seen: dict[int, int]) -> Iterator[object]:
    """What an object keeps; plain functions and classes are not copied, so that they are never out of date."""
    if isinstance(value, functools.partial):
        for part in (value.func, value.args, value.keywords):
            yield from _parts(part, seen)
    elif isinstance(value, MethodType):
        yield from _parts(value.__self__, seen)
    elif not isinstance(value, type | FunctionType):
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else tuple(slots):
                if isinstance(vars(kind).get(name), MemberDescriptorType):
                    yield from _parts(getattr(value, name, None), seen)
        if hasattr(value, "__dict__"):
            yield from _parts(vars(value), seen)


def _of_tensor(tensor: Tensor) -> Iterator[object]:
    yield id(tensor), None if tensor.is_inference() else tensor._version


def _checksum(tensor: Tensor) -> int | None:
    """Of the values; None where they can't be read, or are so many that they are data rather than a network's."""
    try:
        if tensor.nbytes > _MOST_BYTES:
            return None
        return zlib.crc32(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantised or without values
        return None

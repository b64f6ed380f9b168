"""What a network is besides its registered parameters and buffers: structure and plain attributes."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

# What training changes all the time, or what is copied with the weights.
_LEFT_OUT = frozenset({"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "momentum"})
_EXACT = frozenset({bool, int, str, type(None)})
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def attributes(model: nn.Module) -> list[object]:
    """Structure and plain attributes of all modules, comparable with ``==``; tensors count by identity and version.

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
    """The value, or what is in it."""
    if isinstance(value, _PLAIN):
        yield type(value)
        yield repr(value) if isinstance(value, float | complex) else value  # NaN equals itself as text
        return
    if id(value) in seen:
        yield "again", seen[id(value)]
        return
    seen[id(value)] = len(seen)
    if isinstance(value, Tensor):
        yield id(value), value._version
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key) if isinstance(key, _PLAIN) else id(key)
            yield from _parts(item, seen)
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _parts(item, seen)
        yield "]"
    elif isinstance(value, nn.Module):  # in a plain list: its weights are not copied either
        for tensor in (*value.parameters(), *value.buffers()):
            yield from _parts(tensor, seen)
        yield from _of_modules(value, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield id(value)
        yield from _parts(vars(value), seen)
    else:
        yield id(value)

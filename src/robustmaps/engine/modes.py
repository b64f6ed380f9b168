"""Training and evaluation mode, module by module, and what stands in the way of running a network."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from robustmaps.engine.errors import InputError
from robustmaps.engine.text import first_line

# Containers within containers that are searched for networks, and entries of each.
_DEEPEST, _MOST = 3, 1000


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters require no gradients.

    Raises:
        InputError: the network can't be copied, or its copy has layers or weights of the network itself.
    """
    copied = copy_of(model)
    both = {id(each) for each in _members(model)} & {id(each) for each in _members(copied)}
    if both:
        raise InputError("the network can't be copied (its copy shares layers or weights with it)")
    set_evaluating(copied)
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def copy_of(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy.

    Args:
        model: any network.
        memo: what takes the place of its objects in the copy, by ``id``.

    Raises:
        InputError: the network can't be copied.
    """
    try:
        with torch.no_grad():  # otherwise copies of scripted parameters are no leaves
            return copy.deepcopy(model, memo)
    except Exception as error:  # a network's own code may run, and raise anything
        raise InputError(f"the network can't be copied ({first_line(error)})") from error


def _members(model: nn.Module) -> Iterator[object]:
    """Layers and tensors, also of networks that it hides."""
    for network in (model, *hidden_modules(model).values()):
        yield from chain(network.modules(), network.parameters(), network.buffers())


def check_initialised(model: nn.Module) -> None:
    """Refuse a network with lazy parameters that have no shape yet.

    Raises:
        InputError: there is one.
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise InputError(f"{name} is lazy and has no shape yet: call the network once on an image, then pass it on")


def check_values(model: nn.Module) -> None:
    """Refuse a network whose parameters have no values yet.

    Raises:
        InputError: a parameter is lazy and uninitialised, or on the ``meta`` device.
    """
    check_initialised(model)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device and has no values: load the network's weights first")


def check_changeable(model: nn.Module) -> None:
    """Refuse to change or train a network that can't be: a module in it says so in an attribute ``unchangeable``.

    Raises:
        InputError: there is one; the message is what it says.
    """
    for module in model.modules():
        if isinstance(why := getattr(module, "unchangeable", None), str):
            raise InputError(why)


def hidden_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Networks that a network keeps where PyTorch does not look for them, by path.

    Such as a list, a dictionary or an object: they are not moved, trained, saved or switched to evaluation mode.
    """
    registered = {id(module) for module in model.modules()}
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()

    def search(value: object, path: str, depth: int) -> None:
        if id(value) in seen or depth > _DEEPEST:
            return
        if isinstance(value, nn.Module):
            if id(value) not in registered:
                seen.add(id(value))
                found[path] = value
            return
        if value is None or isinstance(value, str | int | float | Tensor):
            return
        seen.add(id(value))
        for key, one in _inside(value):
            search(one, f"{path}{key}", depth + 1)

    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in _OWN:
                search(value, f"{path}.{name}".lstrip("."), 0)
    return found


def _inside(value: object) -> Iterator[tuple[str, object]]:
    """What a plain container or object holds, with the place of each part in Python."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", one) for key, one in islice(value.items(), _MOST))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", one) for number, one in enumerate(islice(value, _MOST)))
    elif str(type(value).__module__).partition(".")[0] not in _NO_HOLDERS and not isinstance(value, type):
        yield from ((f".{name}", one) for name, one in getattr(value, "__dict__", {}).items())


# Attributes that every module has: its registered parts and its hooks.
_OWN = frozenset(vars(nn.Module()))
# Types without networks of their own, which make the search slow.
_NO_HOLDERS = frozenset(["builtins", "torch", "numpy", "functools", "threading", "_thread", "types"])


def move(model: nn.Module, device: torch.device) -> None:
    """Move a network to a device, with the networks that it hides."""
    for module in (model, *hidden_modules(model).values()):
        module.to(device)


def set_evaluating(model: nn.Module) -> None:
    """Switch a network to evaluation mode, with the networks that it hides."""
    for module in (model, *hidden_modules(model).values()):
        with suppress(NotImplementedError):  # the mode of an exported program was fixed when it was exported
            module.eval()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, with the networks that a network hides; restored even after an exception."""
    with modes_restored(model):
        set_evaluating(model)
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and parameters without gradients within the block; restored even after an exception."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with evaluating(model):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Restore every module's mode after the block, even after an exception."""
    modules = chain(model.modules(), *(hidden.modules() for hidden in hidden_modules(model).values()))
    modes = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def unused(model: nn.Module) -> Iterator[None]:
    """Within the block, calls of a network's own layers raise.

    A copy makes such calls if it keeps functions, which are not copied, whose variables are the network or its layers.
    These are in the mode of the network, and have statistics that a pass may change.

    Raises:
        RuntimeError: in the block, when a layer is called.
    """
    layers = {id(module) for module in chain(model.modules(), *(m.modules() for m in hidden_modules(model).values()))}

    def refuse(module: nn.Module, _: Any) -> None:
        if id(module) in layers:
            raise RuntimeError("a copy of the network still calls layers of the network itself")

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within the block, passes in training mode leave the running statistics of normalisations unchanged."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    try:
        # Not copied back afterwards: autograd holds the running statistics until the backward pass.
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


@contextmanager
def no_shortcuts() -> Iterator[None]:
    """Within the block, attention takes no fast path without gradients.

    So all passes make the same calls, and no operations are hidden from PyTorch's counter.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

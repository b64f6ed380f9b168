"""One forward pass, recorded: each operation with its arguments, its place in the network and its data's origin.

Operations are intercepted where PyTorch dispatches functions (``__torch_function__``), so functional calls are seen as
well as modules. This level is above autograd, so the surgery can also change what is recorded here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from robustmaps.engine.calling import logits_of, own_copy, parameter_dtype
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import check_initialised, copy_of, no_shortcuts, set_evaluating
from robustmaps.engine.text import first_line

IMAGE = -1
"""The image, in place of the index of the call that made a tensor."""

READ = "__get__"
"""The name under which PyTorch dispatches reads of a tensor's attributes."""

RUN_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError)
"""What networks raise for a map of unsupported size."""


@dataclass(frozen=True)
class Value:
    """A tensor argument.

    Attributes:
        shape: its shape.
        source: the index of the call that made it, None for what does not depend on the image.
        weights: names of the parameters and buffers that it was then made of.
    """

    shape: torch.Size
    source: int | None
    weights: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Call:
    """One operation of the pass.

    Attributes:
        index: position among the calls that depend on the image.
        position: position among all calls.
        name: the function's name, such as ``conv2d`` or ``__getitem__``.
        args: positional arguments, with a `Value` for each tensor.
        kwargs: keyword arguments, likewise.
        shape: shape of the (first) result.
        frames: paths of the enclosing modules, outermost first.
    """

    index: int
    position: int
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: torch.Size
    frames: tuple[str, ...]

    @cached_property
    def inputs(self) -> tuple[Value, ...]:
        """The tensors among the arguments that depend on the image."""
        return tuple(v for v in tree_leaves((self.args, dict(self.kwargs))) if _depends(v))

    @property
    def path(self) -> str:
        """The path of the module that made the call."""
        return self.frames[-1] if self.frames else ""

    def __str__(self) -> str:
        return f"{self.path or '(network)'}: {self.name}"


@dataclass(frozen=True)
class Trace:
    """A recorded pass.

    Attributes:
        calls: the calls that depend on the image, in order.
        log: function name and enclosing modules of all calls.
        image: shape of the image (1, C, H, W).
        output: the logits.
        runs: how often each module ran, by path.
        shapes_only: whether the pass computed only shapes.
    """

    calls: tuple[Call, ...]
    log: tuple[tuple[str, tuple[str, ...]], ...]
    image: torch.Size
    output: Value
    runs: Mapping[str, int]
    shapes_only: bool

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image[2], self.image[3]


class Recorder(TorchFunctionMode):
    """While active, logs all calls and records those that depend on an image."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.log: list[tuple[str, tuple[str, ...]]] = []
        self.runs: Counter[str] = Counter()
        self._frames: list[str] = []
        self._source: dict[int, int] = {}
        tensors = chain(model.named_parameters(), model.named_buffers())
        self._weights = {id(tensor): frozenset([name]) for name, tensor in tensors}
        # Tensors are identified by address, so none may be freed during the pass.
        self._alive: list[Tensor] = []
        self._note(image, IMAGE)
        for path, module in model.named_modules():
            module.register_forward_pre_hook(self._enter(path), prepend=True)
            module.register_forward_hook(self._leave, always_call=True)

    def source(self, tensor: Tensor) -> int | None:
        """The index of the call that made a tensor; None if it does not depend on the image."""
        return self._source.get(id(tensor))

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function and record it if its result depends on the image."""
        kwargs = kwargs or {}
        known = tree_map(self._value, (args, kwargs))  # before the call, which may change a tensor in place
        name = function_name(func)
        self.log.append((name, tuple(self._frames)))
        position = len(self.log) - 1
        result = _run(name, func, args, kwargs)
        made = [args[0]] if name == "__setitem__" else [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        values = [value for value in tree_leaves(known) if isinstance(value, Value)]
        if made and any(map(_depends, values)):
            index = len(self.calls)
            self.calls.append(Call(index, position, name, known[0], known[1], made[0].shape, tuple(self._frames)))
            for tensor in made:
                self._note(tensor, index)
        elif weights := frozenset().union(*(value.weights for value in values)):
            for tensor in made:
                self._weights.setdefault(id(tensor), weights)
                self._alive.append(tensor)
        return result

    def _note(self, tensor: Tensor, source: int) -> None:
        self._source[id(tensor)] = source
        self._alive.append(tensor)

    def _value(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        source = self.source(leaf)
        return Value(leaf.shape, source, self._weights.get(id(leaf), frozenset()) if source is None else frozenset())

    def _enter(self, path: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            self._frames.append(path)
            self.runs[path] += 1

        return hook

    def _leave(self, *_: object) -> None:
        self._frames.pop()


def function_name(func: Callable[..., Any]) -> str:
    """The name under which a PyTorch function is recorded and replaced."""
    return getattr(func, "__name__", str(func)).partition(".")[0]


def unread_position(recorded: Trace, call: Call) -> int:
    """The position of a call among all calls except reads of attributes, which hooks of other tools make too."""
    return sum(name != READ for name, _ in recorded.log[: call.position])


def shape_copy(model: nn.Module) -> nn.Module:
    """A copy on the ``meta`` device, which computes only shapes; the weights are not copied."""
    tensors = chain(model.parameters(), model.buffers())
    memo: dict[int, Any] = {id(t): _meta(t) for t in tensors}
    return copy_of(model, memo)


def trace(model: nn.Module, image: Tensor) -> Trace:
    """Record a network's pass in evaluation mode, without changing the network.

    The pass computes only shapes if possible; a network that depends on values runs for real on a copy.

    Args:
        model: any network.
        image: one image (1, C, H, W).

    Raises:
        InputError: the network can't take the image, returns no logits (1, classes), is scripted or lazy.
    """
    scripted = [path or "(network)" for path, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        raise InputError(f"{scripted[0]} is scripted, so its calls can't be seen or changed; pass the original network")
    check_initialised(model)
    try:
        return record(shape_copy(model), image, shapes_only=True)
    except RUN_ERRORS:
        pass
    try:
        return record(copy_of(model), image, shapes_only=False)
    except InputError:
        raise
    except RUN_ERRORS as error:
        raise InputError(
            f"{type(model).__name__} can't take images of shape {tuple(image.shape[1:])}: {first_line(error)}"
        ) from error


def record(model: nn.Module, image: Tensor, *, shapes_only: bool) -> Trace:
    """Record a pass of a disposable copy of a network, which keeps the hooks.

    Args:
        model: the copy, made by `shape_copy` for shapes only.
        image: one image (1, C, H, W).
        shapes_only: whether to compute only shapes.
    """
    recorder, run = _recorded(model, image, shapes_only=shapes_only)
    output = logits_of(run())
    value = Value(output.shape, recorder.source(output))
    if value.source is None:
        raise InputError(
            f"{type(model).__name__}: no recorded operation connects the image to the logits; expected a network of "
            "PyTorch functions"
        )
    return Trace(tuple(recorder.calls), tuple(recorder.log), image.shape, value, dict(recorder.runs), shapes_only)


def reached(model: nn.Module, image: Tensor, *, shapes_only: bool) -> tuple[Call, ...]:
    """The calls of a pass up to where it fails, with the arguments of `record`."""
    recorder, run = _recorded(model, image, shapes_only=shapes_only)
    with suppress(*RUN_ERRORS):
        run()
    return tuple(recorder.calls)


def _recorded(model: nn.Module, image: Tensor, *, shapes_only: bool) -> tuple[Recorder, Callable[[], Any]]:
    """A recorder of a network, and a function that runs the network under it."""
    set_evaluating(model)
    image = own_copy(image.detach().to("meta") if shapes_only else image.detach(), parameter_dtype(model))
    recorder = Recorder(model, image)

    def run() -> Any:
        with torch.no_grad(), no_shortcuts(), recorder:
            return model(image)

    return recorder, run


def _run(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name == "batch_norm" and args and args[0].is_meta:
        return torch.empty_like(args[0])  # PyTorch spends most of a pass on working out that the shape stays
    return func(*args, **kwargs)


def _depends(value: object) -> bool:
    return isinstance(value, Value) and value.source is not None


def _meta(tensor: Tensor) -> Tensor:
    shapes = torch.empty_like(tensor, device="meta")
    return nn.Parameter(shapes, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shapes

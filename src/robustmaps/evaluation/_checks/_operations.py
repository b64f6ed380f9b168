"""Operations that block gradients: found by watching a forward pass, and bridged for attacks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from robustmaps.engine.calling import logits_of, own_copy, parameter_dtype

# Their derivative is zero almost everywhere.
_STEPS = frozenset(
    [
        *("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "floor_divide", "bernoulli"),
        *("round_", "floor_", "ceil_", "trunc_", "fix_", "sign_", "sgn_", "floor_divide_"),
    ]
)
# They return integers, which carry no gradient.
_INTEGERS = frozenset(
    [
        *("argmax", "argmin", "argsort", "bucketize", "searchsorted", "multinomial", "histc"),
        *("int", "long", "short", "byte", "char", "to", "type", "quantize_per_tensor", "quantize_per_channel"),
    ]
)
# They use only the shape of their argument.
_TEMPLATES = ("_like", "new_")


@dataclass(frozen=True)
class Operation:
    """An operation on values computed from the images, and the module that called it."""

    name: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} in {self.path or 'the network itself'}"


def find_cuts(model: nn.Module, x: Tensor) -> list[Operation]:
    """Run the network on images and list the operations that block gradients, each once per module.

    PyTorch functions called from Python are seen; scripted modules and C++ functions are not.
    """
    stack = [""]
    # If the network refuses images that require gradients, the operations until then count.
    with torch.enable_grad(), _paths(model, stack), suppress(RuntimeError), _Watch(stack) as watch:
        model(own_copy(x.detach().requires_grad_(), parameter_dtype(model)))
    return list(watch.found)


class StraightThrough(nn.Module):
    """A network whose steps pass gradients on as if they were the identity (BPDA, arXiv 1802.00420, section 4.1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), the same up to rounding."""
        with _Bridge():
            return logits_of(self.model(x), len(x))


class _Watch(TorchFunctionMode):
    """Records the operations on images that block the gradient."""

    def __init__(self, stack: list[str]) -> None:
        super().__init__()
        self._stack = stack
        self.found: dict[Operation, None] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if _tracked((args, kwargs)) and isinstance(result, Tensor):
            cut = _cut(name, result)
            if cut:
                self.found[Operation(cut, self._stack[-1])] = None
        return result


def _cut(name: str, result: Tensor) -> str:
    """The name of an operation on a tracked tensor if it blocks the gradient, else empty."""
    if name in _STEPS:
        return name
    if result.requires_grad or name.startswith(_TEMPLATES[1]) or name.endswith(_TEMPLATES[0]):
        return ""
    if not result.is_floating_point():
        return name if name in _INTEGERS else ""
    if not torch.is_grad_enabled():
        return f"{name} without gradients"
    return "data" if name == "__get__" else name


class _Bridge(TorchFunctionMode):
    """Passes gradients through rounding, signs and detaching."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name == "detach" and _tracked(args):
            return args[0]
        result = func(*args, **(kwargs or {}))
        if name in _STEPS and not name.endswith("_") and _tracked(args[:1]) and result.shape == args[0].shape:
            return args[0] + (result - args[0]).detach()
        return result


@contextmanager
def _paths(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Within the block, the last entry of ``stack`` is the path of the running module."""
    handles = []
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
            continue
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: stack.append(path)))
        handles.append(module.register_forward_hook(lambda *_: _drop(stack), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _drop(stack: list[str]) -> None:
    stack.pop()


def _tracked(values: object) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(values))

"""Gradient checkpointing: the stages of a network keep only their input, and run again in the backward pass.

The memory of a backward pass is what forward passes keep for it. With checkpointed stages (Chen et al., arXiv
1604.06174) that is the input of every stage, and everything within a single one at a time, for about one more forward
pass in each backward pass. Values and gradients are the same: batch-norms do not count the second run, and random draws
are repeated.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _len_torch_function_stack
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from robustmaps.engine.calling import call
from robustmaps.engine.memory import saved_bytes
from robustmaps.engine.modes import evaluating

_PARTS = 8  # a stage keeps no more than this part of everything, if it can be divided


@dataclass(frozen=True)
class Stage:
    """A part of a network that runs once in a pass.

    Attributes:
        path: the module's path.
        parts: for an ``nn.Sequential``, after which of its modules to divide it; empty for the module as a whole.
    """

    path: str
    parts: tuple[int, ...] = ()


@dataclass
class _Seen:
    """What was seen of a module in a pass.

    Attributes:
        calls: how often it ran.
        kept: bytes for the backward pass.
        repeatable: whether it can run again, with the same result.
        given: its tensors, with their versions then: what was changed since is not its input any more.
        inside: the paths of the modules that it ran.
    """

    calls: int = 0
    kept: int = 0
    repeatable: bool = True
    given: list[tuple[Tensor, int]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)


def find_stages(model: nn.Module, example: Tensor) -> tuple[tuple[Stage, ...], int]:
    """The parts of a network to compute again, by what each keeps for the backward pass.

    Args:
        model: the network; it runs once in evaluation mode.
        example: an image or a few (N, C, H, W).

    Returns:
        The stages, none if the network can't be divided, and the bytes that its backward pass needs for these images.
    """
    seen = {path: _Seen() for path, _ in model.named_modules()}
    running: list[str] = []
    depth = _len_torch_function_stack()

    def enter(path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        one = seen[path]
        one.calls += 1
        one.given += _versions(args)
        # A mode around the module would be missing when it runs again.
        if _len_torch_function_stack() != depth or isinstance(module, torch.jit.ScriptModule):
            one.repeatable = False
        if running and path not in seen[running[-1]].inside:
            seen[running[-1]].inside.append(path)
        running.append(path)

    def leave(*_: object) -> None:
        running.pop()

    def note(size: int) -> None:
        for path in running:
            seen[path].kept += size

    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(partial(enter, path)).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        weights = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
        with evaluating(model), torch.enable_grad(), saved_bytes(note, *weights):
            call(model, example.detach().clone().requires_grad_())
    for one in seen.values():
        one.repeatable = one.calls == 1 and one.repeatable and _unchanged(one.given)
        one.given.clear()
    kept = seen[""].kept
    return tuple(_stages(model, seen, "", kept // _PARTS)), kept


def _stages(model: nn.Module, seen: dict[str, _Seen], path: str, most: int) -> Iterator[Stage]:
    one, module = seen[path], model.get_submodule(path)
    branches = [inside for inside in one.inside if seen[inside].inside]
    if one.calls != 1 or not one.inside or not one.kept:
        return
    if one.repeatable and path and one.kept <= most:
        yield Stage(path)
    elif one.repeatable and type(module) is nn.Sequential and not branches:
        children = [seen[f"{path}.{name}" if path else name] for name, _ in module.named_children()]
        if parts := tuple(_divided(children, most)):  # else the whole network would run again at once
            yield Stage(path, parts)
    elif one.repeatable and path and not branches:
        yield Stage(path)
    else:
        for inside in branches:
            yield from _stages(model, seen, inside, most)


def _divided(modules: Sequence[_Seen], most: int) -> Iterator[int]:
    """After which modules to divide a sequence, so that no part of several keeps more than ``most``."""
    total = 0
    for number, one in enumerate(modules):
        if total and total + one.kept > most and one.repeatable:
            yield number
            total = 0
        total += one.kept


def _versions(args: tuple[Any, ...]) -> list[tuple[Tensor, int]]:
    return [(arg, arg._version) for arg in args if isinstance(arg, Tensor)]


def _unchanged(given: Sequence[tuple[Tensor, int]]) -> bool:
    return all(tensor._version == version for tensor, version in given)


def checkpoint_stages(model: nn.Module, stages: Sequence[Stage]) -> None:
    """Let these stages of a network run again in backward passes, for good."""
    for stage in stages:
        module = model.get_submodule(stage.path)
        own: Callable[..., Any] = module.forward
        object.__setattr__(module, "forward", partial(_run, module, own, stage.parts))


@contextmanager
def checkpointed(model: nn.Module, stages: Sequence[Stage]) -> Iterator[None]:
    """The same within the block, for passes whose backward passes may come after it."""
    checkpoint_stages(model, stages)
    try:
        yield
    finally:
        for stage in stages:
            del model.get_submodule(stage.path).__dict__["forward"]


def _run(module: nn.Module, own: Callable[..., Any], parts: tuple[int, ...], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return own(*args, **kwargs)
    if not parts:
        return _again(module, own, *args, **kwargs)
    (result,) = args
    modules = list(module.children())
    for start, end in zip((0, *parts), (*parts, len(modules)), strict=True):
        result = _again(module, partial(_in_turn, modules[start:end]), result)
    return result


def _again(module: nn.Module, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(run, *args, use_reentrant=False, context_fn=partial(_contexts, module), **kwargs)


def _in_turn(modules: Sequence[nn.Module], x: Any) -> Any:
    for module in modules:
        x = module(x)
    return x


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _uncounted(module)


@contextmanager
def _uncounted(module: nn.Module) -> Iterator[None]:
    """Batch-norms in training mode normalise by their batch as before, and leave their statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

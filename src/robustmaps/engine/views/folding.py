"""Batch-norms that can be folded into the convolution before them, found by watching one forward pass.

In evaluation mode a batch-norm is a fixed affine map per channel, so a convolution that feeds only it can absorb its
scale and shift. Class names and the order of modules play no part.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from robustmaps.engine.calling import call

# Queries that read no values of a tensor.
_QUESTIONS = frozenset(
    [Tensor.dim, Tensor.size, *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device"))]
)


@dataclass(frozen=True)
class FoldablePair:
    """The paths of a convolution and of the batch-norm that is the only consumer of its output."""

    convolution: str
    norm: str


def find_foldable(model: nn.Module, x: Tensor) -> list[FoldablePair]:
    """Run ``model`` once on ``x`` and list the pairs that can be folded exactly.

    Both modules of a pair have one path, ran once and have neither hooks nor shared parameters; the convolution's
    output went only into the batch-norm.

    Args:
        model: a network in evaluation mode.
        x: images, shape (N, C, H, W).
    """
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    owners = Counter(id(p) for m in paths for p in m.parameters(recurse=False))

    def plain(module: nn.Module) -> bool:
        return (
            len(paths[module]) == 1 and not _has_hooks(module) and all(owners[id(p)] == 1 for p in module.parameters())
        )

    convolutions = {m for m in paths if type(m) is nn.Conv2d and plain(m)}
    norms = {m for m in paths if type(m) is nn.BatchNorm2d and m.running_mean is not None and plain(m)}
    outputs: dict[nn.Module, list[Tensor]] = {m: [] for m in convolutions}
    inputs: dict[nn.Module, list[Tensor]] = {m: [] for m in norms}
    handles = [
        *(m.register_forward_hook(_appender(outputs[m], output=True)) for m in convolutions),
        *(m.register_forward_hook(_appender(inputs[m], output=False)) for m in norms),
    ]
    try:
        with torch.no_grad(), _CountUses(outputs.values()) as uses:
            call(model, x)
    finally:
        for handle in handles:
            handle.remove()
    consumer = {id(calls[0]): norm for norm, calls in inputs.items() if len(calls) == 1}
    pairs = []
    for convolution, calls in outputs.items():
        norm = consumer.get(id(calls[0])) if len(calls) == 1 else None
        if norm is not None and uses.count[id(calls[0])] == 1:
            pairs.append(FoldablePair(paths[convolution][0], paths[norm][0]))
    return sorted(pairs, key=lambda pair: pair.convolution)


def folded_parameters(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals the pair in evaluation mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("norm has no running statistics; expected a batch-norm with track_running_stats=True")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return convolution.weight * scale[:, None, None, None], shift


class _CountUses(TorchFunctionMode):
    """Counts how many operations read each of the watched tensors."""

    def __init__(self, watched: Iterable[list[Tensor]]) -> None:
        super().__init__()
        self._watched = watched
        self.count: Counter[int] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _QUESTIONS:
            watched = {id(call) for calls in self._watched for call in calls}
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in watched:
                    self.count[id(leaf)] += 1
        return func(*args, **kwargs)


def _appender(calls: list[Tensor], *, output: bool) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(_: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        calls.append(result if output else args[0] if args else torch.empty(0))

    return hook


def _has_hooks(module: nn.Module) -> bool:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in names)

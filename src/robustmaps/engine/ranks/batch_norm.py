"""Batch-norm over the images of all ranks, on any device, without replacing a module of the network."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robustmaps.engine.ranks.agreeing import named


class SharedStatistics(TorchFunctionMode):
    """While active, batch-norms in training mode normalise by the images of all ranks.

    A layer makes two reductions in its forward pass and two in its backward pass. Every rank has to make the same
    passes. The running statistics of all ranks end up the same. The mean comes first and the squared distances from it
    second, since the difference of two large sums would lose digits. A loss is expected to be weighted before its
    backward pass, so that the ranks' losses add up to that of the whole batch.

    Args:
        counted: whether this rank's images count; a rank too many makes its passes for company.
    """

    def __init__(self, *, counted: bool = True) -> None:
        super().__init__()
        self._weight = float(counted)

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run batch-norms with the statistics of all ranks, and anything else as it is."""
        return (self._batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002 - as PyTorch names it
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        x = input if input.dtype == torch.float64 else input.float()
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        pixels = x.new_full((1,), x.numel() / x.shape[1])
        sums = _added(torch.cat([x.sum(axes), pixels]) * self._weight)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        apart = x - mean.view(shape)
        variance = _added((apart * apart).sum(axes) * self._weight) / count
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = variance * (count / (count - 1).clamp(min=1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        scale = (variance + eps).rsqrt() if weight is None else (variance + eps).rsqrt() * weight
        result = apart * scale.view(shape)
        return (result if bias is None else result + bias.view(shape)).to(input.dtype)


def _added(x: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of the gradients of all ranks' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _reduced(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _reduced(gradient)


def _reduced(x: Tensor) -> Tensor:
    import torch.distributed as dist

    total = x.clone(memory_format=torch.contiguous_format)
    with named():
        dist.all_reduce(total)
    return total

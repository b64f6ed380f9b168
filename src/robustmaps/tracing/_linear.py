"""Functions of PyTorch in linear versions with the same receptive field, in which a gradient shows every connection."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.engine.finite import largest_finite
from robustmaps.tracing._trace import function_name

# Activations, norms and functions without a derivative: the identity has the same field.
_POINTWISE = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "threshold"),
    *("hardswish", "hardsigmoid", "hardtanh", "hardshrink", "softshrink", "sigmoid", "logsigmoid", "tanh", "erf"),
    *("softplus", "softsign", "clamp", "clip", "clamp_min", "clamp_max", "nan_to_num"),
    *("batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"),
    *("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_dropout"),
    *("round", "floor", "ceil", "trunc", "sign", "detach"),
}
_LARGEST = ("max", "amax", "min", "amin")
# Their values are chosen among all along an axis, so that a gradient shows few of those that take part.
_RANKED = ("sort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode", "quantile", "nanquantile")


def linear(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of the linear version of a function, in the structure of its own.

    Args:
        name: the function's name, see `function_name`.
        func: the function.
        args: its arguments.
        kwargs: those with a name.
    """
    if name == "where" and len(args) == 3 and all(isinstance(x, Tensor) and x.requires_grad for x in args[1:]):
        return args[1] + args[2]  # either may be chosen
    base = name.removesuffix("_") if not name.startswith("__") else name
    first = args[0] if args else kwargs.get("input")
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return func(*args, **kwargs)
    if base in _POINTWISE:
        return first
    if name in _LARGEST:
        return _mean(name, first, args[1:], kwargs)
    if name in ("maximum", "minimum", "fmax", "fmin"):
        return first + args[1]
    if name in ("cummax", "cummin"):
        chosen = func(*args, **kwargs)
        return type(chosen)((first.cumsum(args[1] if len(args) > 1 else kwargs["dim"]), chosen[1]))
    if name in _RANKED:
        return _spread(func, args, kwargs)
    if name == "max_pool1d":
        return _pooled_1d(*args, **kwargs)
    if name == "max_pool2d":
        return _pooled(func, args, kwargs)
    if name == "adaptive_max_pool2d":
        return F.adaptive_avg_pool2d(first, args[1] if len(args) > 1 else kwargs["output_size"])
    if base in ("softmax", "log_softmax"):
        return func(_tempered(first), *args[1:], **kwargs)
    if name == "scaled_dot_product_attention":
        return func(_tempered(first), _tempered(args[1]), *args[2:], **kwargs)
    return func(*args, **kwargs)


def _mean(name: str, x: Tensor, more: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A mean in place of a maximum, with the result's structure."""
    other = more[0] if more else kwargs.get("dim", kwargs.get("other"))
    if isinstance(other, Tensor):
        return x + other
    keep = more[1] if len(more) > 1 else kwargs.get("keepdim", False)
    mean = x.mean() if other is None else x.mean(other, keepdim=keep)
    if name in ("amax", "amin") or other is None:
        return mean
    return getattr(torch.return_types, name)((mean, x.argmax(other, keepdim=keep)))


def _spread(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The mean along the axis in place of each value that was chosen along it, with the result's structure."""
    x, found = args[0] if args else kwargs["input"], func(*args, **kwargs)
    values = found if isinstance(found, Tensor) else found[0]
    place = {"kthvalue": 2, "topk": 2, "quantile": 2, "nanquantile": 2}.get(function_name(func), 1)
    given = args[place] if len(args) > place else kwargs.get("dim")
    usual = {"msort": 0, "sort": -1, "topk": -1, "kthvalue": -1, "mode": -1}.get(function_name(func))
    axis = usual if given is None else given
    mean = x.mean() if axis is None else x.mean(axis, keepdim=values.dim() >= x.dim())
    mean = mean.expand(values.shape).clone()
    return mean if isinstance(found, Tensor) else type(found)((mean, found[1]))


def _pooled(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The sum of a window's four corners, in place of its maximum, whatever its stride, padding and dilation."""
    x = args[0] if args else kwargs["input"]
    pixels = torch.arange(x.shape[2] * x.shape[3], dtype=x.dtype).view(1, 1, *x.shape[2:])
    total: Any = 0.0
    # Numbered in four orders, the pixels' maximum is each corner in turn, and tells the corner's place.
    for axes in ((), (3,), (2,), (2, 3)):
        order = pixels.flip(axes)
        corner = func(order, *args[1:], **{name: value for name, value in kwargs.items() if name != "input"})
        place = order.flatten().argsort()[corner.flatten().long()]
        total = total + x.flatten(2)[:, :, place].view(*x.shape[:2], *corner.shape[2:])
    return total


def _pooled_1d(
    input: Tensor,  # noqa: A002 - PyTorch's name for it
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As `_pooled`, of rows; indices are not told."""
    wide = {"kernel_size": kernel_size, "stride": stride or kernel_size, "padding": padding, "dilation": dilation}
    sizes = {name: value[0] if isinstance(value, tuple) else value for name, value in wide.items()}
    thin = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    if return_indices:
        raise NotImplementedError
    pairs = {name: (thin[name], size) for name, size in sizes.items()}
    return _pooled(F.max_pool2d, (input[:, :, None],), {**pairs, "ceil_mode": ceil_mode}).squeeze(2)


def _tempered(x: Tensor) -> Tensor:
    """Scores of moderate size, so that no weight of a softmax vanishes; minus infinity still masks."""
    return x / (1.0 + largest_finite(x.detach()) * math.sqrt(x.shape[-1]))

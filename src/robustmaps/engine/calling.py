"""How a network is called: on its own copy of the images, in its own precision, and with one rule for its logits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from robustmaps.engine.errors import InputError

_PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Caller(nn.Module):
    """A module that calls a network as this file does, so that it needs no copy of the images itself."""


def call(model: nn.Module, x: Tensor) -> Any:
    """What a network returns for images (N, C, H, W).

    The network gets a copy, so that it may change its input in place, in the precision of its parameters.
    """
    return model(x if isinstance(model, Caller) else own_copy(x, parameter_dtype(model)))


def network_logits(model: nn.Module, x: Tensor) -> Tensor:
    """The logits (N, K) of images (N, C, H, W), at least in float32; see `call` and `logits_of`.

    Raises:
        InputError: there is no tensor (N, classes) in what the network returns.
    """
    return at_least_float32(logits_of(call(model, x), len(x)))


def own_copy(x: Tensor, dtype: torch.dtype | None = None, *, channels_last: bool = False) -> Tensor:
    """A differentiable copy of images in other memory.

    Always copying costs less than 0.1 % of a pass of a ResNet-8, and finding out who needs it could be wrong: a network
    may write into its input for some images only.

    Args:
        x: images (N, C, H, W).
        dtype: the copy's type; that of ``x`` if None.
        channels_last: whether the copy is in channels-last order.
    """
    copied = x if dtype is None else x.to(dtype)
    if channels_last and copied.dim() == 4:
        copied = copied.contiguous(memory_format=torch.channels_last)
    return copied.clone() if copied is x else copied


def to_channels_last(model: nn.Module) -> None:
    """Store a network's weights of two-dimensional convolutions in channels-last order, in place.

    PyTorch's ``model.to(memory_format=...)`` refuses networks with weights of three-dimensional ones.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


_FEW_CHANNELS = 16  # oneDNN's block of channels with AVX-512; 8 with AVX2


def trains_in_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Whether gradients of a network's weights may be computed in channels-last order.

    On CPUs, the weights' gradient of a strided 1x1 convolution with few channels would be written past its memory,
    which ends the process or gives wrong gradients (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    if device.type != "cpu":
        return True
    unstrided = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d) and set(module.stride) == {1}
    }
    narrow = (w for w in model.parameters() if w.dim() == 4 and w.shape[2:] == (1, 1) and w.shape[1] < _FEW_CHANNELS)
    return all(id(weight) in unstrided for weight in narrow)


def parameter_dtype(model: nn.Module) -> torch.dtype | None:
    """The precision of a network: that of its first floating-point parameter, None without one."""
    return next((p.dtype for p in model.parameters() if p.dtype in _PRECISIONS), None)


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 if they are in half precision: float64 stays."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def logits_of(result: object, count: int | None = None) -> Tensor:
    """The logits in what a network returns.

    That is the tensor itself; of several values the entry or attribute ``logits``, else the first tensor of a tuple.
    Auxiliary outputs, as GoogLeNet and Inception have in training, are left out.

    Args:
        result: what the network returned.
        count: the number of images, if known.

    Raises:
        InputError: there is no such tensor (N, classes), or a mapping without ``logits`` has several tensors.
    """
    expected = "logits (N, classes)" if count is None else f"logits of shape ({count}, classes)"
    if not isinstance(result, Tensor):
        given = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
        result = result if given is None else given
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if isinstance(result, Mapping) and len(tensors) > 1:
        raise InputError(
            f"the network returned a mapping with {', '.join(map(repr, result))}; expected an entry 'logits'"
        )
    found = tensors[0] if tensors else None
    if found is None or found.dim() != 2 or (count is not None and len(found) != count):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or type(result).__name__
        images = "" if count is None else f" for {count} images"
        raise InputError(f"the network returned {shapes}{images}; expected {expected}")
    return found


def fitting(logits: Tensor, y: Tensor) -> Tensor:
    """Logits (N, classes), unchanged, for labels (N,) that are among their classes.

    Raises:
        InputError: a label is not.
    """
    if int(y.max()) >= logits.shape[1]:
        raise InputError(
            f"labels go up to {int(y.max())}: the network has {logits.shape[1]} classes, 0 to {logits.shape[1] - 1}"
        )
    return logits


class LogitsNetwork(Caller):
    """A network as one that takes float images in [0, 1] and returns only logits, in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return logits_of(call(self.network, x)).float()

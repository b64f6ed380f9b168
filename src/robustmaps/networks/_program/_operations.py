"""The operations that a program may have.

A program comes from a file, so whoever opens it runs what it names. These compute tensors from tensors and numbers:
none opens a file, writes anywhere but to its own tensors, or gives results whose size depends on values. Anything else
is refused, in writing as in reading.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch

from robustmaps.engine.errors import InputError

_LAYERS = """
conv1d conv2d conv3d conv_transpose1d conv_transpose2d convolution linear addmm mm bmm matmul baddbmm einsum
scaled_dot_product_attention mv dot vdot _weight_norm batch_norm instance_norm layer_norm group_norm rms_norm embedding
dropout feature_dropout alpha_dropout
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
relu relu6 leaky_relu prelu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid softplus tanh sigmoid
log_sigmoid threshold glu softshrink hardshrink softmax _softmax log_softmax _log_softmax
"""
_SHAPES = """
view _unsafe_view view_as reshape reshape_as flatten unflatten permute transpose t numpy_T movedim swapaxes swapdims
squeeze unsqueeze expand expand_as contiguous clone alias cat concat stack chunk split split_with_sizes slice select
narrow unbind repeat tile flip roll pixel_shuffle pixel_unshuffle channel_shuffle pad constant_pad_nd
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d unfold im2col col2im
upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
_upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa grid_sampler affine_grid_generator
index_select index gather
"""
_NUMBERS = """
add sub rsub subtract mul multiply div divide true_divide floor_divide remainder fmod pow square sqrt rsqrt exp expm1
log log1p log2 log10 abs neg negative sign reciprocal clamp clip clamp_min clamp_max maximum minimum max min amax amin
argmax argmin mean sum prod var std norm linalg_vector_norm norm_except_dim logsumexp cumsum sin cos tan atan erf
round floor ceil trunc frac where eq ne lt le gt ge logical_and logical_or logical_not isfinite isnan isinf nan_to_num
lerp addcmul addcdiv topk sort argsort any all tril triu
"""
MAKERS = frozenset({"zeros", "ones", "full", "arange", "linspace", "eye", "scalar_tensor"})
"""Operations that make a tensor from numbers alone."""
_TENSORS = f"""
{" ".join(MAKERS)} zeros_like ones_like full_like new_zeros new_ones new_full fill zero copy
to _to_copy type_as detach lift_fresh lift_fresh_copy sym_size
"""
OPERATIONS = frozenset(f"{_LAYERS} {_SHAPES} {_NUMBERS} {_TENSORS}".split())
"""Names of PyTorch's operations (``torch.ops.aten``), which may also change their first argument (``relu_``)."""
OF_NUMBERS: dict[str, Callable[..., Any]] = {
    f"operator.{function.__name__}": function
    for function in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.getitem)
}
"""What may be computed from the number of images, and the choice of one of several results."""

_AS = {"view.default": "reshape.default"}
"""The same values for maps in another order in memory, as the fast form of attacks has them."""


def name_of(target: object) -> str:
    """The name of an operation of an exported graph, as `operation` takes it.

    Raises:
        InputError: a program may not have it.
    """
    name = next((name for name, function in OF_NUMBERS.items() if function is target), None)
    name = name or (str(target).removeprefix("aten.") if isinstance(target, torch._ops.OpOverload) else str(target))
    operation(name)
    return name


def operation(name: str) -> Callable[..., Any]:
    """The operation of a name such as ``conv2d.default``.

    Raises:
        InputError: it is not among `OPERATIONS`, or this version of PyTorch does not have it.
    """
    if name in OF_NUMBERS:
        return OF_NUMBERS[name]
    name = _AS.get(name, name)
    base, _, overload = name.partition(".")
    if base.removesuffix("_") not in OPERATIONS or "out" in overload.split("_"):
        raise InputError(f"{name[:60]} is not among the operations that a program may have")
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or overload not in packet.overloads():
        raise InputError(f"PyTorch {torch.__version__} has no operation {name[:60]}")
    found: Callable[..., Any] = getattr(packet, overload)
    return found

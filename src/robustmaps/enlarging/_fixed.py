"""Weights for a fixed number of patches that are not interpolated, named where a network is refused."""

import math

from torch.utils._pytree import tree_leaves

from robustmaps.tracing import Call, Trace, Value, read_window, size_of

_LINEAR = ("linear", "matmul", "__matmul__", "conv1d")
_BIASED = ("add", "add_", "__add__", "__radd__", "__iadd__", "scaled_dot_product_attention")


def fixed_at(trace: Trace, call: Call) -> str:
    """Where an enlarged network fails, and what fixes the number of patches there if that is known."""
    weights = [v for v in tree_leaves((call.args, dict(call.kwargs))) if isinstance(v, Value) and v.weights]
    if call.name in _BIASED and any(_between_tokens(weight, call) for weight in weights):
        return f"at {call}, which adds relative positions for a grid of fixed size"
    if call.name in _LINEAR and weights and _across_patches(trace, call):
        return f"at {call}, a layer across a fixed number of patches"
    return f"at {call}"


def _between_tokens(weight: Value, call: Call) -> bool:
    """Whether a weight has a number for each pair of tokens."""
    given = call.inputs[0].shape
    return len(given) > 2 and len(weight.shape) > 1 and weight.shape[-2] == weight.shape[-1] == given[-2] > 1


def _across_patches(trace: Trace, call: Call) -> bool:
    """Whether the axis that a layer sums over is that of the patches of an earlier map rather than of the channels."""
    shape = call.inputs[0].shape
    counts = {math.prod(size_of(c.shape)) for c in trace.calls[: call.index] if read_window(c) is not None}
    return len(shape) == 3 and shape[1 if call.name == "conv1d" else 2] in counts - {1}

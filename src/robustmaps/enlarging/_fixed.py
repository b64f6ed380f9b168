"""Weights for a fixed number of patches that can't be interpolated, for messages about networks that stay as they are."""

from torch.utils._pytree import tree_leaves

from robustmaps.tracing import Call, Trace, Value, read_window, size_of

_LINEAR = ("linear", "matmul", "__matmul__", "conv1d")
_BIASED = ("add", "add_", "__add__", "__radd__", "__iadd__", "scaled_dot_product_attention")


def fixed_by(trace: Trace) -> str | None:
    """What in a network fixes the number of its patches; None if nothing of the kind is found."""
    counts = {1}
    for call in trace.calls:
        if read_window(call) is not None:
            rows, columns = size_of(call.shape)
            counts.add(rows * columns)
        weights = [v for v in tree_leaves((call.args, dict(call.kwargs))) if isinstance(v, Value) and v.weights]
        if call.name in _BIASED and any(_between_tokens(weight, call) for weight in weights):
            return (
                f"{call.path or 'the network'} adds learned relative positions, for a grid of fixed size, to attention"
            )
        if call.name in _LINEAR and weights and _across_patches(call, counts):
            return f"{call.path or 'the network'} is a linear layer across a fixed number of patches"
    return None


def _between_tokens(weight: Value, call: Call) -> bool:
    """Whether a weight has a number for each pair of tokens."""
    pair = weight.shape[-2:]
    tokens = call.inputs[0].shape[-2]
    return len(pair) == 2 and pair[0] == pair[1] == tokens > 1 and len(call.inputs[0].shape) > 2


def _across_patches(call: Call, counts: set[int]) -> bool:
    """Whether the axis that a layer sums over is that of the patches rather than of the channels."""
    shape = call.inputs[0].shape
    axis = 1 if call.name == "conv1d" else -1
    return len(shape) == 3 and shape[axis] > 1 and shape[axis] in counts - {1}

"""The receptive field and the consumers of each call of a trace."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from robustmaps.tracing._trace import IMAGE, Call, Trace, Value
from robustmaps.tracing._windows import Pair, bind, margin, pair, read_window

_MIXERS = ("scaled_dot_product_attention", "multi_head_attention_forward", "softmax")

RESAMPLERS = (
    "interpolate",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "lp_pool2d",
    "max_pool2d_with_indices",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "grid_sample",
    "pixel_shuffle",
    "conv_transpose2d",
)
"""Other functions that resize a map; they are reported but not changed."""


@dataclass(frozen=True)
class Sight:
    """What a pixel of a map sees.

    Attributes:
        field_px: height and width of the part of the image that it depends on.
        stride_px: distance in the image between the fields of two neighbouring pixels.
    """

    field_px: tuple[float, float]
    stride_px: tuple[float, float]


def sights(trace: Trace) -> Mapping[int, Sight]:
    """What each call's result sees, by the call's index; `IMAGE` is the image.

    Side branches that pool the whole map into one number per channel (squeeze and excitation) are ignored, as is usual
    in the literature.
    """
    seen = {IMAGE: Sight((1.0, 1.0), (1.0, 1.0))}
    for call in trace.calls:
        seen[call.index] = _sight(trace, call, seen)
    return seen


def size_of(shape: torch.Size) -> Pair:
    """Height and width of a map; (1, 1) for anything else."""
    return (shape[-2], shape[-1]) if len(shape) >= 4 else (1, 1)


def consumers(trace: Trace) -> Mapping[int, Sequence[Call]]:
    """The calls that read each call's result, by that call's index."""
    readers: dict[int, list[Call]] = defaultdict(list)
    for call in trace.calls:
        for source in {value.source for value in call.inputs if value.source is not None}:
            readers[source].append(call)
    return readers


def unpadded(trace: Trace, value: Value) -> tuple[Value, Pair]:
    """The map before the calls that padded or cropped it, and what they added to its height and width."""
    height = width = 0
    while value.source not in (None, IMAGE):
        call = trace.calls[value.source]
        added = margin(call)
        if added is None:
            break
        height, width = height + added[0], width + added[1]
        value = call.inputs[0]
    return value, (height, width)


def leading_inputs(call: Call) -> list[Value]:
    """The inputs that carry the map: the largest ones, so not a gate of one pixel."""
    areas = [math.prod(size_of(value.shape)) for value in call.inputs]
    return [value for value, area in zip(call.inputs, areas, strict=True) if area == max(areas)]


def pixels_in_channels(trace: Trace, call: Call) -> Value | None:
    """The map whose pixels a chain of reshapes, ending here, has moved into channels; None for any other call."""
    if call.name not in ("view", "reshape", "flatten") or len(call.shape) != 4 or len(call.inputs[0].shape) == 4:
        return None
    value = call.inputs[0]
    while len(value.shape) != 4 and value.source not in (None, IMAGE):
        value = trace.calls[value.source].inputs[0]
    if len(value.shape) != 4 or value.shape[2] <= call.shape[2]:
        return None
    ratio = value.shape[2] // call.shape[2]
    wanted = (value.shape[0], value.shape[1] * ratio**2, value.shape[2] // ratio, value.shape[3] // ratio)
    return value if wanted == tuple(call.shape) else None


def _sight(trace: Trace, call: Call, seen: Mapping[int, Sight]) -> Sight:
    inputs = leading_inputs(call)
    known = [seen[value.source] for value in inputs if value.source is not None]
    field = (max(s.field_px[0] for s in known), max(s.field_px[1] for s in known))
    stride = (max(s.stride_px[0] for s in known), max(s.stride_px[1] for s in known))
    window = read_window(call)
    if window is not None:
        reach = (window.reach(0) - 1, window.reach(1) - 1)
        return Sight(
            (field[0] + reach[0] * stride[0], field[1] + reach[1] * stride[1]),
            (stride[0] * window.stride[0], stride[1] * window.stride[1]),
        )
    if call.name == "unfold":
        return _unfolded(call, field, stride)
    folded = pixels_in_channels(trace, call)
    if folded is not None:
        ratio = folded.shape[2] // call.shape[2]
        return Sight(
            (field[0] + (ratio - 1) * stride[0], field[1] + (ratio - 1) * stride[1]),
            (stride[0] * ratio, stride[1] * ratio),
        )
    if call.name in _MIXERS:
        return Sight((math.inf, math.inf), stride)
    before, after = size_of(inputs[0].shape), size_of(call.shape)
    if call.name not in RESAMPLERS:
        before = _size_before_reshapes(trace, call)
        if 1 in after or before == after or any(b % a for b, a in zip(before, after, strict=True)):
            return Sight(field, stride)
    return Sight(field, (stride[0] * before[0] / after[0], stride[1] * before[1] / after[1]))


def _size_before_reshapes(trace: Trace, call: Call) -> Pair:
    """The size of the map that a mean over reshaped blocks ``(N, C, H/2, 2, W/2, 2)`` pools; else the call's own."""
    value = call.inputs[0]
    if len(call.shape) != 4 or len(value.shape) not in (5, 6):
        return size_of(call.shape)
    while len(value.shape) != 4 and value.source not in (None, IMAGE):
        made = trace.calls[value.source]
        if made.name == "unfold":  # its own stride is known
            return size_of(call.shape)
        value = made.inputs[0]
    return size_of(value.shape) if len(value.shape) == 4 else size_of(call.shape)


def _unfolded(call: Call, field: tuple[float, float], stride: tuple[float, float]) -> Sight:
    """Windows along one axis (``Tensor.unfold``) or both (``F.unfold``)."""
    if len(call.shape) == 3:
        given = bind("unfold", call.args, call.kwargs)
        taps, apart, by = (pair(given.get(name, 1)) for name in ("kernel_size", "dilation", "stride"))
        reach = ((taps[0] - 1) * apart[0], (taps[1] - 1) * apart[1])
        return Sight(
            (field[0] + reach[0] * stride[0], field[1] + reach[1] * stride[1]), (stride[0] * by[0], stride[1] * by[1])
        )
    axis, reach, step = call.args[1:]
    down = axis % 4 == 2
    wider = (reach - 1) * stride[0 if down else 1]
    if down:
        return Sight((field[0] + wider, field[1]), (stride[0] * step, stride[1]))
    return Sight((field[0], field[1] + wider), (stride[0], stride[1] * step))

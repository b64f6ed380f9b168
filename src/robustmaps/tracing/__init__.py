"""What a network computes in one pass: its calls, windows, receptive field, head and downsampling steps."""

from robustmaps.tracing._head import (
    Head,
    HeadKind,
    find_head,
    pools_whole_map,
)
from robustmaps.tracing._measured_field import measured_sights
from robustmaps.tracing._receptive_field import (
    RESAMPLERS,
    Sight,
    leading_inputs,
    sights,
    size_of,
    unpadded,
)
from robustmaps.tracing._steps import (
    Transition,
    find_transitions,
    spread_over_steps,
)
from robustmaps.tracing._trace import (
    IMAGE,
    READ,
    RUN_ERRORS,
    Call,
    Trace,
    function_name,
    record,
    shape_copy,
    trace,
    unread_position,
)
from robustmaps.tracing._windows import (
    POOLS,
    Pair,
    Window,
    bind,
    margin,
    pair,
    read_slices,
    read_window,
    spatial_pad,
)

__all__ = [
    "IMAGE",
    "POOLS",
    "READ",
    "RESAMPLERS",
    "RUN_ERRORS",
    "Call",
    "Head",
    "HeadKind",
    "Pair",
    "Sight",
    "Trace",
    "Transition",
    "Window",
    "bind",
    "find_head",
    "find_transitions",
    "function_name",
    "leading_inputs",
    "margin",
    "measured_sights",
    "pair",
    "pools_whole_map",
    "read_slices",
    "read_window",
    "record",
    "shape_copy",
    "sights",
    "size_of",
    "spatial_pad",
    "spread_over_steps",
    "trace",
    "unpadded",
    "unread_position",
]

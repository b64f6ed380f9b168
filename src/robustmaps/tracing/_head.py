"""A network's head: how it reduces its last map, by an average, a maximum, flattening or otherwise."""

import math
from dataclasses import dataclass
from typing import Literal

from robustmaps.tracing._receptive_field import size_of
from robustmaps.tracing._trace import IMAGE, Call, Trace, Value
from robustmaps.tracing._windows import POOLS, Pair, pair, read_window

HeadKind = Literal["average", "max", "flatten", "other"]

_SUMS = ("mean", "sum", "adaptive_avg_pool1d")
_LARGEST = ("amax", "max", "adaptive_max_pool1d")
_REDUCTIONS = _SUMS + _LARGEST
_AVERAGE_POOLS = ("avg_pool2d", "adaptive_avg_pool2d")
_ADAPTIVE = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
_RESHAPES = ("flatten", "view", "reshape")


@dataclass(frozen=True)
class Head:
    """The call that consumes the last map.

    Attributes:
        kind: ``average`` or ``max`` over the whole map, ``flatten``, or ``other`` (attention, a class token).
        call: the call itself.
        map: its input; for a flatten behind an adaptive pool, the input of that pool.
        map_size: height and width of the map.
    """

    kind: HeadKind
    call: Call
    map: Value
    map_size: Pair


def find_head(trace: Trace) -> Head | None:
    """Walk back from the logits to the first call that takes a whole map; None if there is no such call."""
    pending = {trace.output.source}
    pixel: Head | None = None  # a head on a map of one pixel, which an earlier pool may have made
    while pending:
        # Latest call first, so that a pool is met before the convolutions in front of it.
        index = max(i for i in pending if i is not None)
        pending.discard(index)
        if index == IMAGE:
            break
        call = trace.calls[index]
        window = read_window(call)
        if pixel is not None and pixel.kind != "flatten" and _is_dense(call):
            break  # the network pools after this convolution, so it is not the head
        head = _as_head(trace, call)
        if head is not None and head.map_size != (1, 1):
            return head
        if head is not None and (pixel is None or pixel.kind == "flatten"):
            pixel = head
        if window is not None and window.kernel != (1, 1):
            break
        pending |= {value.source for value in call.inputs}
    return pixel


def pools_whole_map(call: Call) -> bool:
    """Whether a call reduces a map (N, C, H, W) to one number per channel."""
    if not call.inputs or len(call.inputs[0].shape) != 4:
        return False
    if call.name in _ADAPTIVE:
        return size_of(call.shape) == (1, 1)
    if call.name in POOLS:
        window = read_window(call)
        return window is not None and window.covers(size_of(call.inputs[0].shape))
    return _reduced(call) == {2, 3}


def _as_head(trace: Trace, call: Call) -> Head | None:
    value = call.inputs[0]
    if pools_whole_map(call) and not is_small_step(call) and _is_map(trace, value):
        kind: HeadKind = "average" if call.name in _SUMS + _AVERAGE_POOLS else "max"
        return Head(kind, call, value, size_of(value.shape))
    if call.name in _REDUCTIONS:
        return _reduction(trace, call)
    if _flattens(call):
        if not _is_map(trace, value):
            return _last_map(trace, call)
        last = value if size_of(value.shape) == (1, 1) else _before_adaptive_pool(trace, value)
        return Head("flatten", call, last, size_of(last.shape))
    if _is_dense(call):
        return Head("flatten", call, value, size_of(value.shape))
    if len(value.shape) == 3 and len(call.shape) == 2 and value.shape.numel() != call.shape.numel():
        return _of_tokens(trace, call, "other")
    return None


def _reduction(trace: Trace, call: Call) -> Head | None:
    """A mean or maximum over a map in another layout than (N, C, H, W), or taken one axis at a time."""
    kind: HeadKind = "average" if call.name in _SUMS else "max"
    value = call.inputs[0]
    if _reduced(call) == {1, 2} and len(value.shape) == 4:  # channels last
        return Head(kind, call, value, (value.shape[1], value.shape[2]))
    before = None if value.source in (None, IMAGE) else trace.calls[value.source]
    if before is not None and before.name in _REDUCTIONS and len(before.inputs[0].shape) == 4:  # one axis, then another
        return Head(kind, call, before.inputs[0], size_of(before.inputs[0].shape))
    return _of_tokens(trace, call, kind) if len(value.shape) == 3 else None


def _of_tokens(trace: Trace, call: Call, kind: HeadKind) -> Head | None:
    """A head on tokens (N, L, C) or (N, C, L); its map is the last with L pixels, or L - 1 with a class token."""
    counts = {length - extra for length in call.inputs[0].shape[1:] for extra in (0, 1)}
    for other in reversed(trace.calls[: call.index]):
        size = size_of(other.shape)
        if read_window(other) is not None and size[0] * size[1] in counts and size != (1, 1):
            return Head(kind, call, Value(other.shape, other.index), size)
    return None


def _is_map(trace: Trace, value: Value) -> bool:
    """Whether four dimensions are those of a map: not tokens in heads, whose sizes no window has made."""
    size, at = size_of(value.shape), value
    while at.source not in (None, IMAGE) and size != (1, 1):
        call = trace.calls[at.source]
        if read_window(call) is not None:
            return True
        if len(call.inputs[0].shape) < 4 <= len(at.shape):
            made = [size_of(c.shape) for c in trace.calls[: call.index] if read_window(c) is not None]
            return any(math.prod(one) == math.prod(size) for one in made)
        at = call.inputs[0]
    return True


def _last_map(trace: Trace, call: Call) -> Head | None:
    """A head that flattens tokens: its map is the last that a window made."""
    for other in reversed(trace.calls[: call.index]):
        if read_window(other) is not None and len(other.shape) == 4 and size_of(other.shape) != (1, 1):
            return Head("flatten", call, Value(other.shape, other.index), size_of(other.shape))
    return None


def _reduced(call: Call) -> set[int]:
    """The axes that a mean, sum or maximum reduces."""
    dims = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if call.name not in ("mean", "sum", "amax", "max") or dims is None:
        return set()
    return {dim % len(call.inputs[0].shape) for dim in ([dims] if isinstance(dims, int) else dims)}


def _flattens(call: Call) -> bool:
    return call.name in _RESHAPES and len(call.inputs[0].shape) == 4 and len(call.shape) == 2


def is_small_step(call: Call, *, averages: bool = False) -> bool:
    """Whether a pool covers a whole map only because the map is as small as an ordinary window, as in VGG's last step.

    Args:
        call: a pool of the whole map.
        averages: count average pools as well.
    """
    names = POOLS if averages else ("max_pool2d",)
    return call.name in names and 1 < max(size_of(call.inputs[0].shape)) <= 3


def _is_dense(call: Call) -> bool:
    """Whether a convolution is as large as its map, which makes it a linear layer on the flattened map."""
    window = read_window(call)
    size = size_of(call.inputs[0].shape)
    return call.name == "conv2d" and window is not None and window.kernel == size != (1, 1) and window.covers(size)


def _before_adaptive_pool(trace: Trace, value: Value) -> Value:
    """The input of the adaptive pool that made a map, looking through layers that keep its size; else the map."""
    at = value
    while at.source not in (None, IMAGE):
        call = trace.calls[at.source]
        if call.name in _ADAPTIVE and _asked_size(call) == size_of(call.shape):
            return call.inputs[0]
        if read_window(call) is not None or call.inputs[0].shape != call.shape:
            break
        at = call.inputs[0]
    return value


def _asked_size(call: Call) -> Pair:
    """The requested output size of an adaptive pool."""
    size = call.args[1] if len(call.args) > 1 else call.kwargs["output_size"]
    return pair(tuple(s or 1 for s in size) if not isinstance(size, int) else size)

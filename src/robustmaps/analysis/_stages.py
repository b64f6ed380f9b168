"""The stages of a network: the parts between its downsampling steps, found in a traced pass."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from robustmaps.engine.errors import InputError
from robustmaps.tracing import (
    IMAGE,
    Call,
    Head,
    Sight,
    Trace,
    find_head,
    leading_inputs,
    margin,
    measured_sights,
    read_window,
    sights,
    size_of,
    unread_position,
)

Key = tuple[tuple[str, ...], str, int]
"""A call by its enclosing modules, its function, and its number among such calls."""

_OPERATIONS = {
    "conv2d": "conv",
    "max_pool2d": "max pool",
    "avg_pool2d": "average pool",
    "__getitem__": "slice",
    "pixel_unshuffle": "space to depth",
}
_HEADS = {
    "average": "average of all",
    "max": "maximum of all",
    "flatten": "flattened",
    "other": "attention or token",
}


@dataclass(frozen=True)
class Stage:
    """The maps between two downsampling steps, described by the last of them.

    Attributes:
        name: path of the module that ends the stage.
        map_size: height and width of the map.
        channels: channels of the map.
        pooling: the next downsampling step with kernel and stride, such as ``conv 3x3 / 2``, or the kind of head.
        stride: distance in image pixels between the fields of neighbours in the map.
        field_px: height and width of a pixel's receptive field; infinite after attention, NaN if unknown.
        position: index of the call that makes the map, among all calls except reads of attributes.
        key: identifies the same call in an enlarged copy of the network.
    """

    name: str
    map_size: tuple[int, int]
    channels: int
    pooling: str
    stride: tuple[float, float]
    field_px: tuple[float, float]
    position: int
    key: Key

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; an infinite receptive field is null, an unknown one is "unknown"."""
        field: Any = None if math.inf in self.field_px else list(self.field_px)
        if any(map(math.isnan, self.field_px)):
            field = "unknown"
        return {
            "name": self.name,
            "map_size": list(self.map_size),
            "channels": self.channels,
            "pooling": self.pooling,
            "effective_stride": list(self.stride),
            "field_px": field,
        }


def find_stages(recorded: Trace, like: Sequence[Stage] = (), *, model: nn.Module | None = None) -> tuple[Stage, ...]:
    """The stages from the image to the last map.

    Args:
        recorded: the network's trace.
        model: the network, to measure receptive fields; None for those of the rule.
        like: stages of the original network; the same places are used if found, so that both can be compared although
            a relaxed step may no longer downsample.

    Raises:
        InputError: the network has no map.
    """
    head = find_head(recorded)
    seen = sights(recorded)
    path = _main_path(recorded, head, seen)
    if not path:
        raise InputError("the network has no stages: it makes no map (N, C, H, W) of the image; expected a convolution")
    keys = _keys(recorded)
    by_key = {key: index for index, key in keys.items()}
    ends = [by_key.get(stage.key) for stage in like]
    if like and None not in ends:
        last = [recorded.calls[end] for end in ends if end is not None]
    else:
        last = _ends(path, seen, _gates(recorded, path[-1].index))
    fields: Mapping[int, Sight | None] = seen
    if model is not None:
        fields = measured_sights(model, recorded, [call.index for call in last])
    stages, begin = [], 0
    for number, call in enumerate(last):
        after = last[number + 1].index if number + 1 < len(last) else None
        field = fields[call.index]
        stages.append(
            Stage(
                name=_name(recorded, call, begin),
                map_size=size_of(call.shape),
                channels=call.shape[1],
                pooling=_head_text(head) if after is None else _pooling(path, call, after),
                stride=seen[call.index].stride_px,
                field_px=(math.nan, math.nan) if field is None else field.field_px,
                position=unread_position(recorded, call),
                key=keys[call.index],
            )
        )
        begin = call.index + 1
    return tuple(stages)


def _main_path(recorded: Trace, head: Head | None, seen: Mapping[int, Sight]) -> list[Call]:
    """The maps (N, C, H, W) from the first that a window makes to the last, along the largest receptive fields."""
    source = head.map.source if head is not None else None
    if source is None:
        source = max((call.index for call in recorded.calls if len(call.shape) == 4), default=IMAGE)
    path: list[Call] = []
    while source is not None and source != IMAGE:
        call = recorded.calls[source]
        path.append(call)
        sources = [value.source for value in leading_inputs(call) if value.source is not None]
        source = max(sources, key=lambda s: (seen[s].field_px, s), default=None)
    path = [call for call in reversed(path) if len(call.shape) == 4]
    first = next((i for i, call in enumerate(path) if read_window(call) is not None), len(path))
    return path[first:]


def _gates(recorded: Trace, last: int) -> set[int]:
    """The calls that no branch, such as a shortcut, bypasses."""
    needed, pending = {last}, [last]
    jumped: set[int] = set()
    while pending:
        call = recorded.calls[pending.pop()]
        for source in {v.source for v in call.inputs if v.source is not None and v.source != IMAGE}:
            jumped.update(range(source + 1, call.index))
            if source not in needed:
                needed.add(source)
                pending.append(source)
    return needed - jumped


def _ends(path: Sequence[Call], seen: Mapping[int, Sight], gates: set[int]) -> list[Call]:
    """The last gate of each part with the same effective stride; without a gate, its last call except padding."""
    ends: list[Call] = []
    stretch: list[Call] = []
    for call, after in zip(path, [*path[1:], None], strict=True):
        stretch.append(call)
        if after is not None and seen[after.index].stride_px == seen[call.index].stride_px:
            continue
        maps = [c for c in stretch if margin(c) is None] or stretch
        ends.append(maps[-1] if after is None else _last(maps, gates))
        stretch = []
    return ends


def _last(maps: Sequence[Call], gates: set[int]) -> Call:
    return next((call for call in reversed(maps) if call.index in gates), maps[-1])


def _keys(recorded: Trace) -> dict[int, Key]:
    count: Counter[tuple[tuple[str, ...], str]] = Counter()
    keys = {}
    for call in recorded.calls:
        keys[call.index] = (call.frames, call.name, count[call.frames, call.name])
        count[call.frames, call.name] += 1
    return keys


def _name(recorded: Trace, call: Call, begin: int) -> str:
    """The outermost module that ends with the call and starts within the stage, else the module of the call."""
    for path in call.frames:
        inside = [other.index for other in recorded.calls if path in other.frames]
        if path and inside[-1] == call.index and inside[0] >= begin:
            return path
    return call.path or call.name


def _pooling(path: Sequence[Call], call: Call, until: int) -> str:
    """The first downsampling step after a call, else the first window."""
    later = [(c, w) for c in path if call.index < c.index <= until and (w := read_window(c)) is not None]
    strided = [(c, w) for c, w in later if w.stride != (1, 1)]
    for step, window in strided or later[:1]:
        kernel, stride = "x".join(map(str, window.kernel)), "x".join(map(str, sorted(set(window.stride))))
        return f"{_OPERATIONS.get(step.name, step.name)} {kernel} / {stride}"
    others = [c.name for c in path if call.index < c.index <= until]
    return others[0] if others else "-"


def _head_text(head: Head | None) -> str:
    return "-" if head is None else _HEADS[head.kind]

"""Downsampling steps: transitions from one map size to a smaller one, across all branches."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from robustmaps.tracing._head import find_head, is_small_step, pools_whole_map
from robustmaps.tracing._receptive_field import (
    RESAMPLERS,
    consumers,
    leading_inputs,
    pixels_in_channels,
    size_of,
    unpadded,
)
from robustmaps.tracing._trace import Call, Trace
from robustmaps.tracing._windows import Pair, read_window


@dataclass(frozen=True)
class Transition:
    """All calls that downsample maps of one size by one stride.

    Attributes:
        before: height and width of the input maps, without explicit padding.
        stride: the stride of the calls.
        calls: in the order in which they run.
    """

    before: Pair
    stride: Pair
    calls: tuple[Call, ...]

    @property
    def after(self) -> Pair:
        """Height and width of the largest output map; the others differ only by their borders."""
        return max(size_of(call.shape) for call in self.calls)


def find_transitions(trace: Trace) -> list[Transition]:
    """The downsampling steps of a network, from the image to the last map."""
    readers = consumers(trace)
    head = find_head(trace)
    groups: dict[tuple[Pair, Pair], list[Call]] = defaultdict(list)
    for call in trace.calls:
        if head is not None and call is head.call:
            continue
        step = _shrinks(trace, call)
        if step is not None and not _pools_to_gate(call, readers):
            groups[step].append(call)
    return [Transition(before, stride, tuple(calls)) for (before, stride), calls in groups.items()]


def spread_over_steps(transitions: Sequence[Transition]) -> list[Transition]:
    """Add a branch that spans several steps (a shortcut around two stages) to each of those steps."""
    calls = {transition: list(transition.calls) for transition in transitions}
    for wide in transitions:
        narrow = [t for t in transitions if t is not wide and _lies_within(t, wide)]
        strides = (math.prod(t.stride[0] for t in narrow), math.prod(t.stride[1] for t in narrow))
        if len(narrow) > 1 and strides == wide.stride:
            del calls[wide]
            for part in narrow:
                calls[part] += wide.calls
    return [
        replace(transition, calls=tuple(sorted(members, key=lambda call: call.index)))
        for transition, members in calls.items()
    ]


def _lies_within(narrow: Transition, wide: Transition) -> bool:
    return all(narrow.before[axis] <= wide.before[axis] and narrow.after[axis] >= wide.after[axis] for axis in (0, 1))


def _shrinks(trace: Trace, call: Call) -> tuple[Pair, Pair] | None:
    """The input size and stride of a call that downsamples; None for any other."""
    folded = pixels_in_channels(trace, call)
    if folded is not None:
        return size_of(folded.shape), (folded.shape[2] // call.shape[2],) * 2
    if not call.inputs or len(call.shape) != 4 or len(call.inputs[0].shape) != 4:
        return None
    window = read_window(call)
    after = size_of(call.shape)
    if window is not None:
        before = size_of(unpadded(trace, call.inputs[0])[0].shape)
        strided = any(window.stride[axis] > 1 and after[axis] < before[axis] for axis in (0, 1))
        return (before, window.stride) if strided else None
    before = size_of(leading_inputs(call)[0].shape)
    halved = all(2 * after[axis] <= before[axis] + 1 for axis in (0, 1)) and before != after
    if not halved or call.name not in RESAMPLERS:
        return None
    return before, (round(before[0] / after[0]), round(before[1] / after[1]))


def _pools_to_gate(call: Call, readers: Mapping[int, Sequence[Call]]) -> bool:
    """Whether a call pools a whole map for a side branch or a head, rather than as a downsampling step."""
    if not pools_whole_map(call):
        return False
    if call.name.startswith("adaptive") or not is_small_step(call, averages=True):
        return True
    meets = _fate(call, readers)
    return meets == "map" or (meets == "nothing" and call.name == "avg_pool2d")


def _fate(call: Call, readers: Mapping[int, Sequence[Call]]) -> Literal["map", "window", "nothing"]:
    """What a call's single output pixel meets first: a larger map (squeeze and excitation) or a larger window."""
    pending, seen, meets_window = [call], set[int](), False
    while pending:
        for reader in readers.get(pending.pop().index, ()):
            window = read_window(reader)
            if window is not None and window.kernel != (1, 1):
                meets_window = True
            elif len(reader.shape) == 4 and size_of(reader.shape) != (1, 1):
                return "map"
            elif reader.index not in seen:
                seen.add(reader.index)
                pending.append(reader)
    return "window" if meets_window else "nothing"

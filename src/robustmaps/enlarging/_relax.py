"""The changes to a network's calls that make chosen steps downsample less."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from robustmaps.enlarging._replacements import AveragedTo, Relaxed, Replacement, Smoothed, Spread, WholeMap
from robustmaps.models import Smooth
from robustmaps.tracing import (
    IMAGE,
    POOLS,
    RESAMPLERS,
    Call,
    Pair,
    Trace,
    Transition,
    Window,
    find_head,
    find_transitions,
    leading_inputs,
    pools_whole_map,
    read_window,
    size_of,
    spatial_pad,
    unpadded,
)


@dataclass(frozen=True)
class Change:
    """A call of a trace and its replacement."""

    call: Call
    replacement: Replacement


def relax(trace: Trace, chosen: Iterable[Transition], factor: int, *, dilate: bool) -> list[Change]:
    """The changes that divide the strides of the chosen steps.

    Args:
        trace: the network's trace.
        chosen: steps of that trace.
        factor: divisor of their strides, on each axis with a stride.
        dilate: whether later windows are dilated so that the original values remain in the map.
    """
    chosen = list(chosen)
    factors = _factors(chosen, factor)
    disagreeing = [transition for transition in chosen if not _agree(trace, transition, factors)]
    keep = {call.index for transition in disagreeing for call in transition.calls}
    spacing = _spacings(trace, factors) if dilate else {}
    changes = []
    for call in trace.calls:
        replacement = _replacement(trace, call, factors, spacing, keep=call.index in keep, dilate=dilate)
        if replacement is not None:
            changes.append(Change(call, replacement))
    return changes


def smooth(trace: Trace, chosen: Iterable[Transition], factor: int, how: Smooth) -> list[Change]:
    """The changes that divide the strides of the chosen steps, and average their maps down to the size they had.

    Args:
        trace: the network's trace.
        chosen: steps of that trace.
        factor: divisor of their strides, on each axis with a stride.
        how: see `Smoothed`.
    """
    factors = _factors(chosen, factor)
    return [
        Change(call, Smoothed(_relaxed(trace, call, _window(call), factors[call.index], dilate=False), how))
        for call in trace.calls
        if call.index in factors
    ]


def not_spread(trace: Trace, chosen: Iterable[Transition], factor: int) -> list[Call]:
    """The calls after which dilation can't preserve the network's function.

    They resample a dilated map, turn it into tokens, or average it for a gate, which then also sees the new pixels.
    """
    head = find_head(trace)
    spacing = _spacings(trace, _factors(chosen, factor))
    spread = [call for call in trace.calls if _incoming(call, spacing) != (1, 1)]
    return [
        call
        for call in spread
        if (head is None or call is not head.call)
        and (call.name in RESAMPLERS or pools_whole_map(call) or (len(call.shape) == 3 and not _pools(call)))
    ]


def fix_head(trace: Trace, *, after: Iterable[Call] | None = None) -> list[Change]:
    """The changes that let pools and layers of fixed size take a larger map.

    Args:
        trace: the network's trace.
        after: change only calls that follow these; None for all.
    """
    reached = set(range(len(trace.calls))) if after is None else _reached(trace, {call.index for call in after})
    head = find_head(trace)
    steps = {call.index for transition in find_transitions(trace) for call in transition.calls}
    changes: list[Change] = []
    for call in trace.calls:
        if call.index not in reached or call.index in steps:
            continue
        if call.name in POOLS and pools_whole_map(call):
            changes.append(Change(call, WholeMap()))
        elif head is not None and call is head.call and head.kind == "flatten" and head.map is call.inputs[0]:
            changes.append(Change(call, AveragedTo(head.map_size)))
    return changes


def _factors(chosen: Iterable[Transition], factor: int) -> dict[int, Pair]:
    """The divisor of each call's stride in the chosen steps; a branch may span several steps."""
    factors: dict[int, Pair] = {}
    for transition in chosen:
        for call in transition.calls:
            down, right = factors.get(call.index, (1, 1))
            stride = _window(call).stride
            factors[call.index] = (down * _divisor(stride[0], factor), right * _divisor(stride[1], factor))
    return factors


def _replacement(
    trace: Trace,
    call: Call,
    factors: Mapping[int, Pair],
    spacing: Mapping[int, Pair],
    *,
    keep: bool,
    dilate: bool,
) -> Replacement | None:
    factor = factors.get(call.index, (1, 1))
    apart = _incoming(call, spacing)
    if apart != (1, 1) and spatial_pad(call) is not None:
        return Spread(apart)
    window = read_window(call)
    if window is None or (factor == (1, 1) and (apart == (1, 1) or pools_whole_map(call) or _is_pointwise(window))):
        return None
    relaxed = _relaxed(trace, call, window, factor, dilate=dilate)
    return replace(relaxed, spacing=apart, keep_size=relaxed.keep_size or keep)


def _relaxed(trace: Trace, call: Call, window: Window, factor: Pair, *, dilate: bool) -> Relaxed:
    """The relaxed window; pools and windows padded to keep the map's size continue to keep it."""
    full, margin = unpadded(trace, call.inputs[0])
    size, result = size_of(full.shape), size_of(call.shape)
    kept = all(result[axis] == -(-size[axis] // window.stride[axis]) for axis in (0, 1))
    pools = call.name in POOLS and factor != (1, 1)
    return Relaxed(window, factor, keep_size=kept or pools, margin=margin, exact=dilate)


def _agree(trace: Trace, transition: Transition, factors: Mapping[int, Pair]) -> bool:
    """Whether all branches of a step give maps of the same size if each follows its own rule of size."""
    sizes = set()
    for call in transition.calls:
        if _window(call).stride != transition.stride:
            continue  # a branch that spans several steps
        relaxed = _relaxed(trace, call, _window(call), factors[call.index], dilate=False)
        given = size_of(call.inputs[0].shape)
        sizes.add((relaxed.size(0, given[0]), relaxed.size(1, given[1])))
    return len(sizes) == 1


def _spacings(trace: Trace, factors: Mapping[int, Pair]) -> dict[int, Pair]:
    """The distance between the original network's pixels in the result of each call."""
    spacing: dict[int, Pair] = {IMAGE: (1, 1)}
    for call in trace.calls:
        down, right = _incoming(call, spacing)
        factor = factors.get(call.index, (1, 1))
        whole = len(call.shape) < 4 or (call.index not in factors and pools_whole_map(call))
        spacing[call.index] = (1, 1) if whole else (down * factor[0], right * factor[1])
    return spacing


def _incoming(call: Call, spacing: Mapping[int, Pair]) -> Pair:
    apart = [spacing.get(v.source, (1, 1)) for v in leading_inputs(call) if v.source is not None]
    return max(a[0] for a in apart), max(a[1] for a in apart)


def _reached(trace: Trace, start: set[int]) -> set[int]:
    reached = set(start)
    for call in trace.calls:
        if any(value.source in reached for value in call.inputs):
            reached.add(call.index)
    return reached


def _window(call: Call) -> Window:
    window = read_window(call)
    if window is None:
        raise TypeError(f"{call}: expected a call that slides a window")
    return window


def _pools(call: Call) -> bool:
    """Whether a call leaves one number per channel, or per channel and row: part of a pool over the whole map."""
    return call.shape.numel() <= call.inputs[0].shape.numel() // max(size_of(call.inputs[0].shape))


def _is_pointwise(window: Window) -> bool:
    return window == Window((1, 1), (1, 1), dilation=window.dilation)


def _divisor(stride: int, factor: int) -> int:
    """The factor on an axis with a stride, else 1."""
    return factor if stride > 1 else 1

"""Operations that slide a window over a map: what they read and the size of their result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustmaps.tracing._trace import Call, Value

Pair = tuple[int, int]
"""Height and width."""

SIGNATURES = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "pixel_unshuffle": ("input", "downscale_factor"),
    "unfold": ("input", "kernel_size", "dilation", "padding", "stride"),
    "__getitem__": ("input", "index"),
    "pad": ("input", "pad", "mode", "value"),
}
POOLS = ("max_pool2d", "avg_pool2d")


@dataclass(frozen=True)
class Window:
    """A window of ``kernel`` taps, ``dilation`` apart, that starts at ``-lead`` and moves by ``stride``.

    Attributes:
        kernel, stride, dilation: as in PyTorch.
        lead: padding above and on the left; negative if a slice starts later.
        tail: padding below and on the right.
        ceil_mode: whether the last window may extend beyond the padding.
    """

    kernel: Pair
    stride: Pair
    lead: Pair = (0, 0)
    tail: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def reach(self, axis: int) -> int:
        """Pixels from the window's first tap to its last, inclusive."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def positions(self, axis: int, size: int) -> int:
        """The number of window positions on ``size`` pixels."""
        room = size + self.lead[axis] + self.tail[axis] - self.reach(axis)
        if not self.ceil_mode:
            return room // self.stride[axis] + 1
        positions = -(-room // self.stride[axis]) + 1
        # PyTorch omits a window that would start in the padding on the right.
        return positions - ((positions - 1) * self.stride[axis] >= size + self.lead[axis])

    def covers(self, size: Pair) -> bool:
        """Whether a single position of the window covers a whole map."""
        return all(self.reach(axis) >= size[axis] and self.positions(axis, size[axis]) == 1 for axis in (0, 1))


def bind(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a function in `SIGNATURES`, by name."""
    return {**dict(zip(SIGNATURES[name], args, strict=False)), **kwargs}


def read_window(call: Call) -> Window | None:
    """The window of a convolution, a pool, a strided slice or a space-to-depth; None for any other operation."""
    if call.name not in SIGNATURES or not call.inputs or len(call.inputs[0].shape) != 4:
        return None
    given = bind(call.name, call.args, call.kwargs)
    if call.name == "conv2d":
        return _convolution(given)
    if call.name in POOLS and not given.get("return_indices"):
        kernel, padding = pair(given["kernel_size"]), pair(given.get("padding", 0))
        stride, dilation = pair(given.get("stride") or kernel), pair(given.get("dilation", 1))
        return Window(kernel, stride, padding, padding, dilation, bool(given.get("ceil_mode")))
    if call.name == "pixel_unshuffle":
        factor = pair(given["downscale_factor"])
        return Window(factor, factor)
    if call.name == "__getitem__":
        slices = read_slices(given["index"])
        if slices is not None and slices[0] == slice(None) and slices[1].step in (None, 1) and _all_stride(slices[2:]):
            rows, columns = slices[2:]
            lead, tail = (-(rows.start or 0), -(columns.start or 0)), (rows.stop or 0, columns.stop or 0)
            return Window((1, 1), (rows.step or 1, columns.step or 1), lead, tail)
    return None


def read_slices(index: object) -> tuple[slice, slice, slice, slice] | None:
    """The four slices of an index into a map (N, C, H, W); None if it does more than slice."""
    items = index if isinstance(index, tuple) else (index,)
    if not all(item is Ellipsis or isinstance(item, slice) for item in items):
        return None
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items = (*items[:at], *[slice(None)] * (5 - len(items)), *items[at + 1 :])
    items = (*items, *[slice(None)] * (4 - len(items)))
    return items[0], items[1], items[2], items[3]


def margin(call: Call) -> Pair | None:
    """Pixels that a call adds to a map's height and width (padding) or removes (slicing); None for other operations."""
    pad = spatial_pad(call)
    if pad is not None:
        left, right, top, bottom = pad
        return top + bottom, left + right
    if call.name in ("contiguous", "clone") and len(call.shape) == 4:
        return 0, 0
    window = read_window(call)
    if window is None or call.name != "__getitem__" or window.stride != (1, 1):
        return None
    return window.lead[0] + window.tail[0], window.lead[1] + window.tail[1]


def spatial_pad(call: Call) -> tuple[int, int, int, int] | None:
    """Left, right, top and bottom padding of a call that pads a map; None for any other operation."""
    if call.name != "pad" or len(call.shape) != 4:
        return None
    pad = tuple(bind("pad", call.args, call.kwargs)["pad"])
    if any(pad[4:]) or not any(pad):
        return None
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return left, right, top, bottom


def pair(value: Any) -> Pair:
    """Expand one number to both axes; keep two as they are."""
    numbers = (value,) if isinstance(value, int) else tuple(int(number) for number in value)
    return numbers[0], numbers[-1]


def _all_stride(parts: tuple[slice, ...]) -> bool:
    """Whether slices only stride and crop: no negative start, and a stop counted from the end if any."""
    return all((part.start or 0) >= 0 and (part.stop or -1) < 0 for part in parts)


def _convolution(given: dict[str, Any]) -> Window:
    weight: Value = given["weight"]
    kernel = (weight.shape[2], weight.shape[3])
    dilation = pair(given.get("dilation", 1))
    padding = given.get("padding", 0)
    if padding == "same":
        total = ((kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1])
        lead = (total[0] // 2, total[1] // 2)
        return Window(kernel, (1, 1), lead, (total[0] - lead[0], total[1] - lead[1]), dilation)
    lead = (0, 0) if padding == "valid" else pair(padding)
    return Window(kernel, pair(given.get("stride", 1)), lead, lead, dilation)

"""Replacements of calls in an enlarged network: frozen values, so that networks can be copied, pickled and printed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.models import SMOOTHED, Smooth
from robustmaps.tracing import Pair, Window, bind, pair, read_slices

Function = Callable[..., Any]


class Replacement(Protocol):
    """Runs in place of a PyTorch function, given that function and its arguments."""

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor: ...


@dataclass(frozen=True)
class Relaxed:
    """A convolution, pool, strided slice or space-to-depth with a smaller stride or more widely spaced taps.

    Position ``i`` of the original map is position ``i * factor * spacing`` here, so padding above and on the left only
    grows with the spacing; the rest of the new size is added or cut on the right and below.

    Attributes:
        window: the original window.
        factor: divisor of the stride.
        spacing: distance between the original network's pixels in the input map.
        keep_size: whether the size shrinks by exactly the remaining stride; else it follows from the window.
        margin: height and width added by explicit padding before, in pixels of the original network.
        exact: whether to keep all of the original map and nothing beyond it, which later taps would read instead of
            padding.
    """

    window: Window
    factor: Pair = (1, 1)
    spacing: Pair = (1, 1)
    keep_size: bool = False
    margin: Pair = (0, 0)
    exact: bool = False

    def __str__(self) -> str:
        new, size = self.new_window, "keeping the size" if self.keep_size else "unpadded"
        return f"stride {new.stride}, dilation {new.dilation}, {size}"

    @property
    def new_window(self) -> Window:
        """The relaxed window."""
        old, (down, right) = self.window, self.spacing
        return replace(
            old,
            stride=(old.stride[0] // self.factor[0], old.stride[1] // self.factor[1]),
            dilation=(old.dilation[0] * down, old.dilation[1] * right),
            lead=(old.lead[0] * down, old.lead[1] * right),
            tail=(old.tail[0] * down, old.tail[1] * right),
        )

    def size(self, axis: int, given: int) -> int:
        """The size of the result for ``given`` pixels."""
        new, spacing, margin = self.new_window, self.spacing[axis], self.margin[axis]
        unpadded = given - margin * spacing
        size = -(-unpadded // new.stride[axis]) if self.keep_size else new.positions(axis, given)
        if self.exact:
            before = self.window.positions(axis, -(-unpadded // spacing) + margin)
            apart = self.factor[axis] * spacing
            size = min(max(size, (before - 1) * apart + 1), before * apart)
        return size

    def tail(self, axis: int, given: int) -> int:
        """Padding on the right (negative: cut) that gives that size."""
        new = self.new_window
        return (self.size(axis, given) - 1) * new.stride[axis] + new.reach(axis) - new.lead[axis] - given

    def is_symmetric(self) -> bool:
        """Whether the plain operation with equal padding on both sides is equivalent for maps of every size."""
        new, old = self.new_window, self.window
        if any(self.margin) or new.lead != new.tail:
            return False
        natural = not self.keep_size and not old.ceil_mode
        return natural or all(
            2 * old.lead[a] == old.reach(a) - 1 and (not old.ceil_mode or new.stride[a] == 1) for a in (0, 1)
        )

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Run the relaxed operation."""
        name = func.__name__.partition(".")[0]
        given = bind(name, args, kwargs)
        return _RUN[name](self, func, given)

    def padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """Left, right, top and bottom padding, as for ``F.pad``."""
        lead = self.new_window.lead
        return lead[1], self.tail(1, x.shape[3]), lead[0], self.tail(0, x.shape[2])


@dataclass(frozen=True)
class Smoothed:
    """A step that computes its map at a smaller stride and then averages it down to the size that it had.

    Attributes:
        relaxed: the step with the smaller stride.
        by: ``average`` over windows as large as the factor, as a pool in place of a stride, or ``blur`` by the
            triangle filter around each original position, 1 2 1 for a factor of 2 (Zhang, arXiv 1904.11486). Values
            beyond the border are left out of the average; the blur repeats those at it.
    """

    relaxed: Relaxed
    by: Smooth

    def __str__(self) -> str:
        return f"{self.relaxed}, then {SMOOTHED[self.by]} by {self.relaxed.factor}"

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Run the operation, and average."""
        given = bind(func.__name__.partition(".")[0], args, kwargs)["input"]
        large = self.relaxed(func, args, kwargs)
        if self.by == "average":
            small = F.avg_pool2d(large, self.relaxed.factor, ceil_mode=True, count_include_pad=False)
        else:
            small = _blurred(large, self.relaxed.factor)
        height, width = (self.relaxed.window.positions(axis, given.shape[2 + axis]) for axis in (0, 1))
        return small[:, :, :height, :width]


def _blurred(x: Tensor, factor: Pair) -> Tensor:
    """Every ``factor``-th value of a map, after a triangle filter of as many pixels to either side, less one."""
    down, right = factor
    rows, columns = (torch.tensor([f - abs(i) for i in range(1 - f, f)], dtype=x.dtype) / f**2 for f in factor)
    filters = (rows[:, None] * columns).to(x.device).expand(x.shape[1], 1, -1, -1)
    padded = F.pad(x, (right - 1, right - 1, down - 1, down - 1), mode="replicate")
    return F.conv2d(padded, filters, stride=factor, groups=x.shape[1])


@dataclass(frozen=True)
class Spread:
    """A padding call before dilated windows, which pads proportionally more."""

    spacing: Pair

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Pad the map."""
        given = bind("pad", args, kwargs)
        down, right = self.spacing
        pad = [p * n for p, n in zip(given["pad"], (right, right, down, down), strict=False)]
        return cast(Tensor, func(given["input"], pad, given.get("mode", "constant"), given.get("value")))


@dataclass(frozen=True)
class WholeMap:
    """A pool whose window covered the whole map: it pools the whole larger map."""

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Pool the map."""
        x = args[0] if args else kwargs["input"]
        if func.__name__ == "avg_pool2d":
            return F.adaptive_avg_pool2d(x, 1)
        return F.adaptive_max_pool2d(x, 1)


@dataclass(frozen=True)
class AveragedTo:
    """A call that needs a map of fixed size: the larger map is averaged down to it first."""

    size: Pair

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Average the map, then run the original call."""
        if args:
            return cast(Tensor, func(F.adaptive_avg_pool2d(args[0], self.size), *args[1:], **kwargs))
        averaged = F.adaptive_avg_pool2d(kwargs["input"], self.size)
        return cast(Tensor, func(**{**kwargs, "input": averaged}))


def _convolve(relaxed: Relaxed, func: Function, given: dict[str, Any]) -> Tensor:
    x = _padded(relaxed, given["input"])
    new = relaxed.new_window
    rest = (new.stride, 0, new.dilation, given.get("groups", 1))
    return cast(Tensor, func(x, given["weight"], given.get("bias"), *rest))


def _max_pool(relaxed: Relaxed, func: Function, given: dict[str, Any]) -> Tensor:
    x = _padded(relaxed, given["input"], -math.inf)
    new = relaxed.new_window
    return cast(Tensor, func(x, new.kernel, new.stride, 0, new.dilation))


def _avg_pool(relaxed: Relaxed, func: Function, given: dict[str, Any]) -> Tensor:
    """Sums of the windows, divided by the number of pixels in each that count."""
    x, new = given["input"], relaxed.new_window
    padded = _padded(relaxed, x)
    if new.dilation == (1, 1):
        sums = cast(Tensor, func(padded, new.kernel, new.stride, 0, False, True, 1))
    else:
        sums = _window_sums(_window_sums(padded, new, 0), new, 1)
    divisor = given.get("divisor_override")
    if divisor:
        return cast(Tensor, sums / divisor)
    border = new.lead if given.get("count_include_pad", True) else (0, 0)
    rows, columns = (_counts(relaxed, axis, x.shape[2 + axis], border[axis], x) for axis in (0, 1))
    return sums / (rows[:, None] * columns)


def _slice(relaxed: Relaxed, func: Function, given: dict[str, Any]) -> Tensor:
    x, new = given["input"], relaxed.new_window
    left, right, top, bottom = relaxed.padding(x)
    whole = slice(None)
    index = given["index"] if isinstance(given["index"], tuple) else (given["index"],)
    channels = cast(tuple[slice, ...], read_slices(index))[1]
    x = F.pad(x[:, :, -top or whole.start :, -left or whole.start :], (0, right, 0, bottom))
    return cast(Tensor, func(x, (whole, channels, slice(None, None, new.stride[0]), slice(None, None, new.stride[1]))))


def _unshuffle(relaxed: Relaxed, _: Function, given: dict[str, Any]) -> Tensor:
    x, new = given["input"], relaxed.new_window
    height, width = relaxed.size(0, x.shape[2]), relaxed.size(1, x.shape[3])
    columns = F.unfold(_padded(relaxed, x), new.kernel, new.dilation, 0, new.stride)
    return columns.view(len(x), -1, height, width)


_RUN: dict[str, Callable[[Relaxed, Function, dict[str, Any]], Tensor]] = {
    "conv2d": _convolve,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "__getitem__": _slice,
    "pixel_unshuffle": _unshuffle,
}


def _padded(relaxed: Relaxed, x: Tensor, value: float = 0.0) -> Tensor:
    padding = relaxed.padding(x)
    return F.pad(x, padding, value=value) if any(padding) else x


def _window_sums(x: Tensor, window: Window, axis: int) -> Tensor:
    """Sums along one axis of a dilated window."""
    taps = x.unfold(2 + axis, window.reach(axis), window.stride[axis])
    return taps[..., :: window.dilation[axis]].sum(-1)


def _counts(relaxed: Relaxed, axis: int, given: int, border: int, like: Tensor) -> Tensor:
    """The number of taps at each position on the map or within ``border`` pixels around it."""
    new = relaxed.new_window
    starts = torch.arange(relaxed.size(axis, given), device=like.device) * new.stride[axis] - new.lead[axis]
    taps = starts[:, None] + torch.arange(new.kernel[axis], device=like.device) * new.dilation[axis]
    return ((taps >= -border) & (taps < given + border)).sum(1).to(like.dtype)


__all__ = ["AveragedTo", "Pair", "Relaxed", "Replacement", "Smoothed", "Spread", "WholeMap", "pair"]

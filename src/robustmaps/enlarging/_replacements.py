"""What a call does instead in an enlarged network: frozen values, so that networks copy, pickle and print well."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.tracing import Pair, Window, bind, pair, read_slices

Function = Callable[..., Any]


class Replacement(Protocol):
    """Runs in place of a function of PyTorch, with that function and its arguments."""

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor: ...


@dataclass(frozen=True)
class Relaxed:
    """A convolution, pool, strided slice or space-to-depth with a smaller stride or a wider spacing of its taps.

    Position ``i`` of the given network's map is position ``i * factor * spacing`` here, so padding above and on the
    left only grows with the spacing; what the new size needs is added or cut on the right and below.

    Attributes:
        window: as the given network has it.
        factor: what the stride is divided by.
        spacing: how far apart the pixels of the given network's map stand in the map that comes in.
        keep_size: whether the size shrinks by exactly the stride that is left; else it is what the window gives.
        margin: height and width that explicit padding calls in front have added, in pixels of the given network.
        exact: whether to hold all of the given network's map and nothing beyond it, since later taps would read that
            where they read padding before.
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
        """The window that slides here."""
        old, (down, right) = self.window, self.spacing
        return replace(
            old,
            stride=(old.stride[0] // self.factor[0], old.stride[1] // self.factor[1]),
            dilation=(old.dilation[0] * down, old.dilation[1] * right),
            lead=(old.lead[0] * down, old.lead[1] * right),
            tail=(old.tail[0] * down, old.tail[1] * right),
        )

    def size(self, axis: int, given: int) -> int:
        """The size of the result for that many pixels."""
        new, spacing, margin = self.new_window, self.spacing[axis], self.margin[axis]
        unpadded = given - margin * spacing
        size = -(-unpadded // new.stride[axis]) if self.keep_size else new.positions(axis, given)
        if self.exact:
            before = self.window.positions(axis, -(-unpadded // spacing) + margin)
            apart = self.factor[axis] * spacing
            size = min(max(size, (before - 1) * apart + 1), before * apart)
        return size

    def tail(self, axis: int, given: int) -> int:
        """Padding (cut where negative) on the right that gives that size."""
        new = self.new_window
        return (self.size(axis, given) - 1) * new.stride[axis] + new.reach(axis) - new.lead[axis] - given

    def is_symmetric(self) -> bool:
        """Whether the plain operation with equal padding on both sides does the same for maps of every size."""
        new, old = self.new_window, self.window
        if any(self.margin) or new.lead != new.tail:
            return False
        natural = not self.keep_size and not old.ceil_mode
        return natural or all(
            2 * old.lead[a] == old.reach(a) - 1 and (not old.ceil_mode or new.stride[a] == 1) for a in (0, 1)
        )

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Run the operation that way."""
        name = func.__name__.partition(".")[0]
        given = bind(name, args, kwargs)
        return _RUN[name](self, func, given)

    def padding(self, x: Tensor) -> tuple[int, int, int, int]:
        """Left, right, top and bottom, as ``F.pad`` takes them."""
        lead = self.new_window.lead
        return lead[1], self.tail(1, x.shape[3]), lead[0], self.tail(0, x.shape[2])


@dataclass(frozen=True)
class Spread:
    """A padding call in front of spread taps: it pads by as many pixels more."""

    spacing: Pair

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Pad."""
        given = bind("pad", args, kwargs)
        down, right = self.spacing
        pad = [p * n for p, n in zip(given["pad"], (right, right, down, down), strict=False)]
        return cast(Tensor, func(given["input"], pad, given.get("mode", "constant"), given.get("value")))


@dataclass(frozen=True)
class WholeMap:
    """A pool whose window was as large as the map: it pools the larger map whole."""

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Pool."""
        x = args[0] if args else kwargs["input"]
        if func.__name__ == "avg_pool2d":
            return F.adaptive_avg_pool2d(x, 1)
        return F.adaptive_max_pool2d(x, 1)


@dataclass(frozen=True)
class AveragedTo:
    """A call that needs a map of a fixed size: the larger map is averaged down to it first."""

    size: Pair

    def __call__(self, func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Average, then do what the call does."""
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
    """Sums of the windows, divided by the pixels in each that count."""
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
    """Sums over one axis of a window with spread taps."""
    taps = x.unfold(2 + axis, window.reach(axis), window.stride[axis])
    return taps[..., :: window.dilation[axis]].sum(-1)


def _counts(relaxed: Relaxed, axis: int, given: int, border: int, like: Tensor) -> Tensor:
    """How many taps of each position fall on the map or on that many pixels around it that count."""
    new = relaxed.new_window
    starts = torch.arange(relaxed.size(axis, given), device=like.device) * new.stride[axis] - new.lead[axis]
    taps = starts[:, None] + torch.arange(new.kernel[axis], device=like.device) * new.dilation[axis]
    return ((taps >= -border) & (taps < given + border)).sum(1).to(like.dtype)


__all__ = ["AveragedTo", "Pair", "Relaxed", "Replacement", "Spread", "WholeMap", "pair"]

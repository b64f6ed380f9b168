"""Rectangles of pixels, and how far a change in one spreads through a convolution or a pooling."""

import math
from typing import Any, NamedTuple

from torch import Tensor, nn


class Region(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, maps: Tensor) -> Tensor:
        """A view of that part of maps (N, C, H, W)."""
        return maps[:, :, self.top : self.bottom, self.left : self.right]

    def within(self, other: "Region") -> "Region":
        """The same region, counted from the corner of another."""
        return Region(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)

    def cut(self, other: "Region") -> "Region":
        """The intersection of both."""
        return Region(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def join(self, other: "Region") -> "Region":
        """The smallest region that contains both."""
        return Region(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


class KernelWindow(NamedTuple):
    """The window of a convolution or a pooling, in rows and columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @staticmethod
    def of(module: nn.Module) -> "KernelWindow | None":
        """The window of a layer that pads with zeros or not at all; None for any other layer."""
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            dilation: Any = module.dilation
        elif type(module) is nn.MaxPool2d and not module.ceil_mode and not module.return_indices:
            dilation = module.dilation
        elif type(module) is nn.AvgPool2d and not module.ceil_mode:
            dilation = 1
        else:
            return None
        sizes = (module.kernel_size, module.stride, module.padding, dilation)
        window = KernelWindow(*(_pair(size) for size in sizes))
        return window if type(module) is nn.Conv2d or window.padding == (0, 0) else None

    def reached(self, axis: int, begin: int, end: int, length: int) -> tuple[int, int]:
        """The range of outputs that see inputs ``begin`` to ``end``; at least one, so that no tensor is empty."""
        stride, padding = self.stride[axis], self.padding[axis]
        span = self.dilation[axis] * (self.kernel[axis] - 1)
        first = min(max(math.ceil((begin + padding - span) / stride), 0), length - 1)
        return first, max(min((end - 1 + padding) // stride + 1, length), first + 1)

    def seen(self, axis: int, begin: int, end: int) -> tuple[int, int]:
        """The range of inputs that outputs ``begin`` to ``end`` see; positions outside the map are border."""
        stride, padding = self.stride[axis], self.padding[axis]
        span = self.dilation[axis] * (self.kernel[axis] - 1)
        return begin * stride - padding, (end - 1) * stride - padding + span + 1


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])

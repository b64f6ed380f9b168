"""Logits of images that differ from known ones in one window, at the cost of the window.

A convolution sees a neighbourhood, so a change of a few pixels reaches only part of the feature maps behind it. Kept
maps of the known images and new values where the change arrives give the same logits as a full pass, up to rounding.
Query attacks that change small windows thousands of times live off it.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from robustmaps.engine.view import AttackView

# Logits of the trial window against a full pass, relative to the largest logit; roundings differ by some 1e-6.
_TOLERANCE = 1e-4

# Kept maps may take this much memory; beyond it a full pass is the better use.
_MOST_BYTES = 2 << 30

_POINTWISE_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish),
)
_POINTWISE_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    F.relu: lambda x, inplace=False: torch.relu(x),  # noqa: ARG005
    torch.relu: torch.relu,
    "relu": torch.relu,
    operator.add: torch.add,
    operator.iadd: torch.add,
    torch.add: torch.add,
    "add": torch.add,
    operator.sub: torch.sub,
    torch.sub: torch.sub,
    operator.mul: torch.mul,
    torch.mul: torch.mul,
    operator.truediv: torch.div,
    torch.div: torch.div,
}
# What symbolic tracing raises for networks whose flow depends on values, or that it can't follow.
_TRACE_ERRORS = (fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, KeyError, IndexError)


class Region(NamedTuple):
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the ends not included."""

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
        """What both have in common."""
        return Region(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def join(self, other: "Region") -> "Region":
        """The smallest region that holds both."""
        return Region(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


@dataclass(frozen=True)
class _Change:
    """New values (N, C, h, w) of a node's maps within a region."""

    region: Region
    values: Tensor


class Incremental:
    """The maps of some images within a network, and what a change of one window does to the logits.

    Made by `incremental`, not by hand.
    """

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        self._traced = fx.symbolic_trace(module)
        self._modules = dict(self._traced.named_modules())
        self._nodes = [node for node in self._traced.graph.nodes if node.users or node.op == "output"]
        keeper = _Keeper(self._traced)
        self.logits: Tensor = keeper.run(images)
        self._kept: dict[fx.Node, Any] = {node: keeper.env[node] for node in self._nodes if node in keeper.env}
        self._changes: dict[fx.Node, _Change] = {}

    @property
    def bytes(self) -> int:
        """Memory that the kept maps take."""
        kept = {value.data_ptr(): value.nbytes for value in self._kept.values() if isinstance(value, Tensor)}
        return sum(kept.values())

    def propose(self, patch: Tensor, top: int, left: int) -> Tensor:
        """Logits (N, K) of the known images with ``patch`` (N, C, h, w) in the window whose corner is given."""
        region = Region(top, top + patch.shape[2], left, left + patch.shape[3])
        self._changes = {}
        dense: dict[fx.Node, Any] = {}
        for node in self._nodes:
            if node.op == "placeholder":
                self._changes[node] = _Change(region, patch)
            elif node.op == "output":
                return self._dense(node.args[0], dense)
            elif node.op == "get_attr":
                dense[node] = self._kept[node]
            else:
                change = self._local(node)
                if change is None:
                    dense[node] = self._run(node, dense)
                else:
                    self._changes[node] = change
        raise AssertionError("a traced graph ends with its output")

    def accept(self, rows: Tensor) -> None:
        """Make the last proposal known for these rows."""
        for node, change in self._changes.items():
            change.region.of(self._kept[node])[rows] = change.values[rows]

    def keep(self, rows: Tensor) -> None:
        """Forget all images but these rows."""
        for node in self._nodes:
            if node.op not in ("get_attr", "output") and isinstance(self._kept.get(node), Tensor):
                self._kept[node] = self._kept[node][rows]

    def _local(self, node: fx.Node) -> _Change | None:
        """What the change of a node's inputs does to its maps, None where it can't be told region by region."""
        changed = [argument for argument in node.all_input_nodes if argument in self._changes]
        if not changed or any(a not in self._changes and a.op != "get_attr" for a in node.all_input_nodes):
            return None
        if node.op == "call_module":
            module = self._modules[str(node.target)]
            source = self._changes[changed[0]]
            window = _Window.of(module)
            if window is not None:
                return self._slide(node, changed[0], module, window)
            if type(module) in _POINTWISE_MODULES:
                values = source.values.clone() if getattr(module, "inplace", False) else source.values
                return _Change(source.region, module(values))
            return None
        function = _POINTWISE_FUNCTIONS.get(node.target)
        constants = (self._kept[a] for a in node.all_input_nodes if a.op == "get_attr")
        if function is None or not all(_same_everywhere(constant) for constant in constants):
            return None
        region = self._changes[changed[0]].region
        for other in changed[1:]:
            region = region.join(self._changes[other].region)
        arguments, keywords = fx.node.map_arg(
            (node.args, node.kwargs), lambda a: self._part(a, region) if a in self._changes else self._kept[a]
        )
        return _Change(region, function(*arguments, **keywords))

    def _slide(self, node: fx.Node, source: fx.Node, module: nn.Module, window: "_Window") -> _Change:
        """The outputs that see the change, from the inputs that they see."""
        before = self._changes[source].region
        height, width = self._kept[node].shape[2:]
        rows = window.reached(0, before.top, before.bottom, height)
        columns = window.reached(1, before.left, before.right, width)
        values = self._part(source, Region(*window.seen(0, *rows), *window.seen(1, *columns)))
        if isinstance(module, nn.Conv2d):
            weight, bias = module.weight, module.bias
            values = F.conv2d(values, weight, bias, module.stride, 0, module.dilation, module.groups)
        else:
            values = module(values)
        return _Change(Region(*rows, *columns), values)

    def _part(self, node: fx.Node, region: Region) -> Tensor:
        """A node's maps within a region, the change put in and zeros beyond the border."""
        change, kept = self._changes[node], self._kept[node]
        if change.region == region:
            return change.values
        inside = region.cut(Region(0, kept.shape[2], 0, kept.shape[3]))
        values = inside.of(kept).clone(memory_format=torch.preserve_format)
        common = inside.cut(change.region)
        if common.top < common.bottom and common.left < common.right:
            common.within(inside).of(values).copy_(common.within(change.region).of(change.values))
        if inside == region:
            return values
        border = (inside.left - region.left, region.right - inside.right)
        return F.pad(values, (*border, inside.top - region.top, region.bottom - inside.bottom))

    def _run(self, node: fx.Node, dense: dict[fx.Node, Any]) -> Any:
        """A node on whole tensors."""
        arguments, keywords = self._dense((node.args, node.kwargs), dense)
        if node.op == "call_module":
            return self._modules[str(node.target)](*arguments, **keywords)
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **keywords)
        return node.target(*arguments, **keywords)  # type: ignore[operator]

    def _dense(self, values: Any, dense: dict[fx.Node, Any]) -> Any:
        def whole(node: fx.Node) -> Any:
            if node in self._changes:
                height, width = self._kept[node].shape[2:]
                return self._part(node, Region(0, height, 0, width))
            return dense[node]

        return fx.node.map_arg(values, whole)


def incremental(view: AttackView, images: Tensor) -> Incremental | None:
    """The maps of ``images`` (N, C, H, W), or None where the network can't be run window by window.

    That is so for views in reduced precision or compiled, for networks that symbolic tracing can't follow, and for
    those whose logits of a trial window differ from a full pass's.
    """
    if view.module is None:
        return None
    images = images.clone(memory_format=torch.channels_last)
    try:
        known = Incremental(view.module, images)
        side = max(min(images.shape[2:]) // 4, 1)
        patch = 1 - images[:, :, :side, 1 : 1 + side]
        trial = images.clone()
        trial[:, :, :side, 1 : 1 + side] = patch
        expected = view(trial)
        error = (known.propose(patch, 0, 1) - expected).abs().max() / expected.abs().max().clamp(min=1.0)
    except _TRACE_ERRORS:
        return None
    return known if bool(error <= _TOLERANCE) and known.bytes <= _MOST_BYTES else None


class _Keeper(fx.Interpreter):
    """Runs a traced network and keeps what every node gave, also where the next one would write over it."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(self.fetch_attr(target), "inplace", False):
            args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        return super().call_module(target, args, kwargs)


class _Window(NamedTuple):
    """What a convolution or a pooling sees, in rows and columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @staticmethod
    def of(module: nn.Module) -> "_Window | None":
        """The window of a layer whose border, if it has one, is of zeros."""
        if (type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)) or (
            type(module) is nn.MaxPool2d and not module.ceil_mode and not module.return_indices
        ):
            settings = (module.kernel_size, module.stride, module.padding, module.dilation)
        elif type(module) is nn.AvgPool2d and not module.ceil_mode:
            settings = (module.kernel_size, module.stride, module.padding, 1)
        else:
            return None
        window = _Window(*(_pair(value) for value in settings))
        return window if type(module) is nn.Conv2d or window.padding == (0, 0) else None

    def reached(self, axis: int, begin: int, end: int, length: int) -> tuple[int, int]:
        """Outputs that see inputs ``begin`` to ``end``; at least one, so that no tensor is empty."""
        stride, padding = self.stride[axis], self.padding[axis]
        span = self.dilation[axis] * (self.kernel[axis] - 1)
        first = min(max(math.ceil((begin + padding - span) / stride), 0), length - 1)
        return first, max(min((end - 1 + padding) // stride + 1, length), first + 1)

    def seen(self, axis: int, begin: int, end: int) -> tuple[int, int]:
        """Inputs that outputs ``begin`` to ``end`` see, where negative ones and those past the end are border."""
        stride, padding = self.stride[axis], self.padding[axis]
        span = self.dilation[axis] * (self.kernel[axis] - 1)
        return begin * stride - padding, (end - 1) * stride - padding + span + 1


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _same_everywhere(constant: Any) -> bool:
    """Whether a constant that is combined with maps has one value per channel at most."""
    return isinstance(constant, Tensor) and all(size == 1 for size in constant.shape[-2:])

"""Logits of images that differ from known ones in one window, at the cost of that window.

A change of a few pixels reaches only part of the feature maps behind a convolution. Cached maps of the known images,
recomputed only where the change arrives, give the logits of a full pass up to rounding. Attacks that query small
windows thousands of times need this to be fast.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from robustmaps.engine.device import float32_products
from robustmaps.engine.finite import largest_difference, largest_finite
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.regions import KernelWindow, Region

# Largest error of the trial window's logits against a full pass, relative to the largest logit; rounding is near 1e-6.
_TOLERANCE = 1e-4

# Multiplications for a small window, relative to a full pass; above this there is little to gain.
_WORTHWHILE = 0.75

# Memory limit of the cached maps.
_MOST_BYTES = 2 << 30

_POINTWISE_MODULES = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish),
)
_POINTWISE_FUNCTIONS: dict[Any, Callable[..., Tensor]] = {
    F.relu: lambda x, inplace=False: torch.relu(x),  # noqa: ARG005
    F.silu: lambda x, inplace=False: F.silu(x),  # noqa: ARG005
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


@dataclass(frozen=True)
class _Change:
    """New values (N, C, h, w) of a node's maps within a region."""

    region: Region
    values: Tensor


_Step = Callable[[], _Change]


class Incremental:
    """Cached maps of some images within a network, updated window by window; made by `incremental`."""

    def __init__(self, module: nn.Module, images: Tensor, read: Callable[[object], Tensor]) -> None:
        self._read_logits = read
        traced = fx.symbolic_trace(module)
        self._modules = dict(traced.named_modules())
        keeper = _Keeper(traced)
        with float32_products(images.device, tf32=False):
            read(keeper.run(images.clone()))
        self._values: dict[fx.Node, Any] = keeper.env
        self._steps: dict[fx.Node, _Step] = {}
        self._dense: list[fx.Node] = []
        # Nodes whose maps are read outside the changed region; only these are cached.
        self._read: set[fx.Node] = set()
        for node in traced.graph.nodes:
            self._plan(node)
        self._sizes = {node: self._values[node].shape[2:] for node in self._steps}
        self._constants = {node: value for node, value in self._values.items() if node.op == "get_attr"}
        self._kept: dict[fx.Node, Tensor] = {node: self._values[node] for node in self._read}
        # For each convolution: multiplications per output, and outputs in a full pass.
        self._outputs = {
            node: (self._modules[str(node.target)].weight[0].numel(), self._values[node].numel())
            for node in traced.graph.nodes
            if node.op == "call_module" and isinstance(self._modules[str(node.target)], nn.Conv2d)
        }
        del self._values
        self._changes: dict[fx.Node, _Change] = {}
        self._rows: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory of the cached maps."""
        return sum(maps.nbytes for maps in self._kept.values())

    @property
    def cost(self) -> float:
        """Multiplications in the last proposal's convolutions, relative to a full pass."""
        sizes = {node: self._changes[node].values.numel() for node in self._outputs if node in self._changes}
        spent = sum(each * sizes.get(node, full) for node, (each, full) in self._outputs.items())
        everything = sum(each * full for each, full in self._outputs.values())
        return float(spent / everything) if everything else 1.0

    def propose(self, patch: Tensor, top: int, left: int, rows: Tensor | None = None) -> Tensor:
        """Logits (N, K) of the known images with ``patch`` (N, C, h, w) placed at row ``top`` and column ``left``.

        Args:
            patch: new pixels, of the images ``rows`` only if those are given.
            top: first row of the window.
            left: first column of the window.
            rows: numbers of images, in ascending order.
        """
        self._rows = rows
        region = Region(top, top + patch.shape[2], left, left + patch.shape[3])
        self._changes = {}
        dense: dict[fx.Node, Any] = {}
        with float32_products(patch.device, tf32=False):
            for node, step in self._steps.items():
                self._changes[node] = _Change(region, patch) if node.op == "placeholder" else step()
            for node in self._dense:
                dense[node] = self._run(node, dense)
        return self._read_logits(dense[node])

    def accept(self, rows: Tensor) -> None:
        """Make the last proposal permanent for these rows, which are among those that it was made for."""
        proposed = rows if self._rows is None else torch.searchsorted(self._rows, rows)
        for node, kept in self._kept.items():
            change = self._changes[node]
            change.region.of(kept)[rows] = change.values[proposed]

    def keep(self, rows: Tensor) -> None:
        """Drop all images except these rows."""
        self._kept = {node: kept[rows] for node, kept in self._kept.items()}

    def _plan(self, node: fx.Node) -> None:
        """Decide how a node follows a change of its inputs: by region, or as a whole."""
        inputs = node.all_input_nodes
        local = [source for source in inputs if source in self._steps]
        step: _Step | None = None
        if node.op == "placeholder":
            step = self._no_step
        elif node.op == "get_attr" or not (node.users or node.op == "output"):
            return
        elif local and all(source in self._steps or source.op == "get_attr" for source in inputs):
            step = self._layer(node, local[0]) if node.op == "call_module" else self._function(node, local)
        if step is not None:
            self._steps[node] = step
        else:
            self._dense.append(node)
            self._read.update(local)

    def _layer(self, node: fx.Node, source: fx.Node) -> _Step | None:
        module = self._modules[str(node.target)]
        window = KernelWindow.of(module)
        if window is not None:
            self._read.add(source)
            return partial(self._slide, node, source, window, _without_border(module))
        if type(module) is nn.Upsample:
            factor = module.scale_factor
            # Nearest-neighbour upsampling by a whole factor repeats pixels; any other kind mixes neighbours.
            if module.mode not in ("nearest", "area") or not isinstance(factor, float) or not factor.is_integer():
                return None
            return partial(self._point, source, module, int(factor))
        if type(module) not in _POINTWISE_MODULES:
            return None
        return partial(self._point, source, _out_of_place(module), 1)

    def _function(self, node: fx.Node, local: list[fx.Node]) -> _Step | None:
        function = _POINTWISE_FUNCTIONS.get(node.target)
        constants = [self._values[source] for source in node.all_input_nodes if source.op == "get_attr"]
        if function is None or not all(_same_everywhere(constant) for constant in constants):
            return None
        if len(local) > 1:
            self._read.update(local)
        return partial(self._join, node, local, function)

    def _no_step(self) -> _Change:
        raise AssertionError("the input changes only through propose()")

    def _point(self, source: fx.Node, function: Callable[[Tensor], Tensor], factor: int) -> _Change:
        """Apply a pointwise function, which may repeat each pixel ``factor`` times along both axes."""
        change = self._changes[source]
        region = change.region if factor == 1 else Region(*(side * factor for side in change.region))
        return _Change(region, function(change.values))

    def _join(self, node: fx.Node, local: list[fx.Node], function: Callable[..., Tensor]) -> _Change:
        """Combine several maps pixel by pixel with each other or with constants."""
        region = self._changes[local[0]].region
        for other in local[1:]:
            region = region.join(self._changes[other].region)
        arguments, keywords = fx.node.map_arg(
            (node.args, node.kwargs), lambda a: self._part(a, region) if a in self._steps else self._constants[a]
        )
        return _Change(region, function(*arguments, **keywords))

    def _slide(
        self, node: fx.Node, source: fx.Node, window: KernelWindow, layer: Callable[[Tensor], Tensor]
    ) -> _Change:
        """Recompute the outputs that see the change."""
        before, (height, width) = self._changes[source].region, self._sizes[node]
        rows = window.reached(0, before.top, before.bottom, height)
        columns = window.reached(1, before.left, before.right, width)
        seen = Region(*window.seen(0, *rows), *window.seen(1, *columns))
        return _Change(Region(*rows, *columns), layer(self._part(source, seen)))

    def _part(self, node: fx.Node, region: Region) -> Tensor:
        """A node's maps within a region, with the change applied and zeros beyond the border."""
        change = self._changes[node]
        if change.region == region:
            return change.values
        height, width = self._sizes[node]
        inside = region.cut(Region(0, height, 0, width))
        values = inside.of(self._kept[node])
        values = values.clone() if self._rows is None else values[self._rows]
        common = inside.cut(change.region)
        if common.top < common.bottom and common.left < common.right:
            common.within(inside).of(values).copy_(common.within(change.region).of(change.values))
        if inside == region:
            return values
        border = (inside.left - region.left, region.right - inside.right)
        return F.pad(values, (*border, inside.top - region.top, region.bottom - inside.bottom))

    def _run(self, node: fx.Node, dense: dict[fx.Node, Any]) -> Any:
        """Run a node on whole tensors."""

        def whole(source: fx.Node) -> Any:
            if source in self._steps:
                height, width = self._sizes[source]
                return self._part(source, Region(0, height, 0, width))
            return self._constants[source] if source.op == "get_attr" else dense[source]

        arguments, keywords = fx.node.map_arg((node.args, node.kwargs), whole)
        if node.op == "output":
            return arguments[0]
        if node.op == "call_module":
            return self._modules[str(node.target)](*arguments, **keywords)
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **keywords)
        return node.target(*arguments, **keywords)  # type: ignore[operator]


def incremental(view: AttackView, images: Tensor) -> Incremental | None:
    """Cache the maps of ``images`` (N, C, H, W); None where the network can't be run window by window.

    That is the case for views that are compiled or in reduced precision, for networks that symbolic tracing can't
    follow or whose trial window gives other logits than a full pass, and where a window soon reaches whole maps.
    """
    if view.module is None:
        return None
    images = images.clone(memory_format=torch.channels_last)
    try:
        known = Incremental(view.module, images, lambda result: view.counted(view.read(result)))
        # An eighth of the image's side, in the middle, where a window reaches furthest.
        side, top, left = max(min(images.shape[2:]) // 8, 1), images.shape[2] // 2, images.shape[3] // 2
        window = Region(top, top + side, left, left + side)
        patch, trial = 1 - window.of(images), images.clone()
        window.of(trial).copy_(patch)
        expected = view(trial)
        difference = largest_difference(known.propose(patch, top, left), expected)
        error = difference / largest_finite(expected).clamp(min=1.0)
    except Exception:  # noqa: BLE001 - the network's own code runs on what it was not made for
        return None
    useful = known.cost <= _WORTHWHILE and known.bytes <= _MOST_BYTES
    return known if useful and bool(error <= _TOLERANCE) else None


class _Keeper(fx.Interpreter):
    """Runs a traced network and keeps every node's result, even where the next node would overwrite it."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(self.fetch_attr(target), "inplace", False):
            args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        return super().call_module(target, args, kwargs)


def _without_border(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The convolution without padding, for inputs that include their border; poolings are unpadded already."""
    if not isinstance(layer, nn.Conv2d):
        return layer
    weight, bias, stride, dilation, groups = layer.weight, layer.bias, layer.stride, layer.dilation, layer.groups
    return lambda x: F.conv2d(x, weight, bias, stride, 0, dilation, groups)


def _out_of_place(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return (lambda x: layer(x.clone())) if getattr(layer, "inplace", False) else layer


def _same_everywhere(constant: Any) -> bool:
    """Whether a constant combined with maps has at most one value per channel."""
    return isinstance(constant, Tensor) and all(size == 1 for size in constant.shape[-2:])

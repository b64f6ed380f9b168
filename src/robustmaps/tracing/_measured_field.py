"""Receptive fields as measured: which pixels of the image have a gradient at the middle pixel of a map.

The network's copy is made linear where a rule can't see through it, so that a gradient vanishes only where there is no
connection: random positive weights in float64, activations, norms and rounding replaced by the identity, maxima by
means, and softmax kept far from saturation. As in `sights`, numbers pooled from a whole map that scale it (squeeze and
excitation) and a norm's statistics are ignored.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from robustmaps.engine.modes import no_shortcuts
from robustmaps.tracing._linear import linear
from robustmaps.tracing._receptive_field import Sight, sights
from robustmaps.tracing._trace import READ, RUN_ERRORS, Trace, function_name

_EXPANDING = ("expand", "expand_as", "repeat", "tile", "interpolate")

# Choices among pixels and random draws: a gradient shows the pixels chosen, not all that could be.
_CHOOSING = {
    *("topk", "sort", "argsort", "median", "kthvalue", "mode", "argmax", "argmin", "unique"),
    *("multinomial", "bernoulli", "rand", "randn", "randint", "randperm"),
}
# Take or put values at places that a tensor gives. If the image decides on them, no gradient shows all that may be.
_PLACING = {
    *("gather", "take_along_dim", "take", "index_select", "masked_select", "__getitem__", "__setitem__"),
    *("scatter", "scatter_add", "scatter_reduce", "index_put", "index_add", "index_copy", "index_fill"),
    *("masked_scatter", "put", "max_unpool1d", "max_unpool2d", "max_unpool3d", "grid_sample"),
}
# Their windows lie at random places.
_SCATTERED = ("fractional_max_pool2d", "fractional_max_pool2d_with_indices")

# An image twice and four times as large where the given one is too small to see a whole field.
_SCALES = (1, 2, 4)
_MOST_PIXELS = 256 * 256
# Attention over all pairs of pixels grows with the fourth power of the scale. A larger image is tried only if no tensor
# of its pass can then have more entries than this (256 MiB).
_MOST_ENTRIES, _FASTEST_GROWTH = 2**25, 2**4

# A recurrent layer forgets pixels gradually: a gradient below this is on its way to 0 in float64 for no other reason.
_UNDERFLOW = 1e-250

# Windows that start at other pixels see more or less by as much.
_ALIGNMENT = 4

Extent = tuple[int, int]


class _Found(Exception):  # noqa: N818 - not an error: the rest of the pass is not needed
    """All maps have been computed."""


class _Linear(TorchFunctionMode):
    """While active, makes a pass linear and keeps the middle pixels of maps.

    Args:
        wanted: the function's name at each position among all calls except conversions and reads of attributes.
    """

    def __init__(self, wanted: Mapping[int, str]) -> None:
        super().__init__()
        self.position, self.chooses, self.largest = -1, False, 0
        self.lost_from = math.inf  # the first position whose map may depend on any pixel
        self._chosen: dict[int, Tensor] = {}
        self.middles: dict[int, Tensor] = {}
        # Where a map that was mirrored, turned or transposed sees other pixels than around the middle.
        self.asides: dict[int, list[Tensor]] = {}
        self._wanted = wanted

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function's linear version."""
        kwargs, name = kwargs or {}, function_name(func)
        if name == READ:
            return func(*args, **kwargs)
        if name == "to":
            return tree_map(_double, func(*args, **kwargs))
        self.position += 1
        self.chooses |= name in _CHOOSING
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if name in _SCATTERED or self._is_placed(name, args, kwargs, given):
            self.lost_from = min(self.lost_from, self.position)
        result = tree_map(_double, linear(name, func, _without_gates(args), kwargs))
        if not name.endswith("_like"):
            self._remember(result, given)
        self.largest = max(self.largest, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), 0)
        if name in _EXPANDING and isinstance(result, Tensor) and args and _is_gate(args[0].shape, result.shape):
            result = result.detach()
        expected = self._wanted.get(self.position)
        if expected is not None:
            first = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
            if name != expected or first is None or first.dim() != 4:
                raise ValueError(f"{name} in place of {expected}")
            self.middles[self.position] = _summed(first, 1 / 2, 1 / 2)
            self.asides[self.position] = [_summed(first, 1 / 4, left) for left in (1 / 4, 3 / 4)]
            if len(self.middles) == len(self._wanted):
                raise _Found
        return result

    def _remember(self, result: Any, given: Sequence[Tensor]) -> None:
        """Keep the numbers that the image decides on and that carry no gradient: places, masks, classes."""
        chosen = any(id(tensor) in self._chosen for tensor in given)
        seen = any(tensor.requires_grad for tensor in given)
        for leaf in tree_leaves(result):
            if (
                isinstance(leaf, Tensor)
                and not leaf.requires_grad
                and (chosen or (seen and not leaf.dtype.is_floating_point))
            ):
                self._chosen[id(leaf)] = leaf

    def _is_placed(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: Sequence[Tensor]) -> bool:
        """Whether values move between pixels to places that the image decides on."""
        base = name.removesuffix("_") if not name.startswith("__") else name
        places = [tensor for tensor in given if id(tensor) in self._chosen]
        if base not in _PLACING or not places:
            return False
        if name == "__setitem__":  # a mask puts values where they are
            return any(place.dtype != torch.bool for place in places)
        axis = next((arg for arg in (*args, kwargs.get("dim")) if isinstance(arg, int)), None)
        return not (axis in (1, -3) and given[0].dim() == 4)


def _summed(maps: Tensor, top: float, left: float) -> Tensor:
    """The sum over channels of the pixel at these fractions of a map's height and width."""
    return maps[0, :, int(top * maps.shape[2]), int(left * maps.shape[3])].sum()


def measured_sights(model: nn.Module, recorded: Trace, indices: Sequence[int]) -> Mapping[int, Sight | None]:
    """What the maps with these call indices see: by the rule where a measurement agrees, else as measured.

    A field that reaches beyond the image can't be measured in it; the rule's then counts unless less than what is seen.
    A field is infinite if it covers the image at every size that the network takes. None is unknown: the linear copy
    fails, no gradient arrives, values were moved to places that the image or a draw decides on, or fewer pixels have a
    gradient than the rule expects in a network that chooses among pixels.

    Args:
        model: the traced network; if on the ``meta`` device, the rule counts.
        recorded: its trace.
        indices: indices of calls that make maps (N, C, H, W).
    """
    rule = sights(recorded)
    found: dict[int, Sight | None] = {index: rule[index] for index in indices}
    tensors = [*model.parameters(), *model.buffers()]
    if not indices or any(tensor.is_meta for tensor in tensors):
        return found
    open_indices = list(indices)
    for scale in _SCALES:
        size = (recorded.image[2] * scale, recorded.image[3] * scale)
        if scale > 1 and math.prod(size) > _MOST_PIXELS:
            break
        measured = _extents(model, recorded, open_indices, size)
        if measured is None:
            found |= dict.fromkeys(open_indices) if scale == 1 else {}
            break
        extents, largest = measured
        left = []
        for index in open_indices:
            sight, settled = _judged(rule[index], extents[index], size)
            found[index] = sight
            left += [] if settled else [index]
        open_indices = left
        if not open_indices or largest * _FASTEST_GROWTH > _MOST_ENTRIES:
            break
    return found


def _judged(rule: Sight, seen: tuple[tuple[Extent, Extent] | None, bool], size: Extent) -> tuple[Sight | None, bool]:
    """The rule's field corrected by what was seen in an image of this size, and whether a larger one tells no more."""
    extents, chooses = seen
    if extents is None:
        return None, True
    fields, settled = [], True
    for axis, (low, high) in enumerate(extents):
        visible, expected = high - low + 1, rule.field_px[axis]
        touches = low == 0 or high == size[axis] - 1
        if chooses and visible < expected:
            return None, True
        if not touches:
            fields.append(float(visible) if abs(visible - expected) >= 1 else expected)
        elif visible <= max(expected, 1.0):
            fields.append(expected)
        else:
            fields.append(math.inf)
            settled = False
    return Sight((fields[0], fields[1]), rule.stride_px), settled


def _extents(
    model: nn.Module, recorded: Trace, indices: Sequence[int], size: Extent
) -> tuple[Mapping[int, tuple[tuple[Extent, Extent] | None, bool]], int] | None:
    """The first and last row and column that each map's middle sees, and whether the pass chose among pixels.

    Beside them, the entries of the largest tensor of the pass. None if the network can't take images of that size, or
    makes other calls than when traced.
    """
    # Without conversions, which depend on the precision, and reads of attributes.
    counted = [name not in (READ, "to") for name, _ in recorded.log]
    places = {index: sum(counted[: recorded.calls[index].position]) for index in indices}
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, recorded.image[1], *size, generator=generator, dtype=torch.float64).requires_grad_()
    linear = _Linear({place: recorded.calls[index].name for index, place in places.items()})
    try:
        subject = _positive(model, generator)
        with torch.enable_grad(), no_shortcuts():
            image = x * 1.0  # a network may change its input in place
            try:
                with linear:
                    subject(image)
            except _Found:
                pass
            if len(linear.middles) < len(places):
                return None
            found = {}
            for index, place in places.items():
                middle, *asides = (_extent(pixel, x) for pixel in (linear.middles[place], *linear.asides[place]))
                found[index] = (
                    None if place >= linear.lost_from else middle and _widened(middle, asides, size),
                    linear.chooses,
                )
            return found, linear.largest
    except (*RUN_ERRORS, NotImplementedError):
        return None


def _widened(
    middle: tuple[Extent, Extent], asides: Sequence[tuple[Extent, Extent] | None], size: Extent
) -> tuple[Extent, Extent]:
    """What the middle sees; along an axis where a pixel aside sees half of the image more than it does, all of it."""

    def along(axis: int) -> Extent:
        width, *others = (each[axis][1] - each[axis][0] for each in (middle, *asides) if each is not None)
        far = any(2 * (other - width) >= size[axis] - _ALIGNMENT for other in others)
        return (0, size[axis] - 1) if far else middle[axis]

    return along(0), along(1)


def _extent(middle: Tensor, x: Tensor) -> tuple[Extent, Extent] | None:
    if not middle.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(middle, x, retain_graph=True, allow_unused=True)
    if gradient is None or not bool(gradient.any()):
        return None
    seen = gradient[0].abs().amax(0)
    return _reach(seen.amax(1)), _reach(seen.amax(0))


def _reach(largest: Tensor) -> Extent:
    """The first and last place of a gradient along an axis; all of it where the gradient ends by underflow."""
    places = largest.nonzero().squeeze(1)
    if float(largest[places].min()) < _UNDERFLOW:
        return 0, len(largest) - 1
    return int(places[0]), int(places[-1])


def _positive(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy on the CPU with random positive weights of moderate size."""
    subject = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    for parameter in subject.parameters():
        if parameter.is_floating_point():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.copy_((0.5 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)) / fan_in)
    return subject


def _without_gates(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, with tensors that are constant over a map's pixels cut off where they meet a map."""
    maps = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() == 4]
    if len(maps) < 2:
        return args
    largest = max(maps, key=lambda tensor: tensor.numel())
    return tuple(
        arg.detach() if isinstance(arg, Tensor) and _is_gate(arg.shape, largest.shape) else arg for arg in args
    )


def _is_gate(shape: torch.Size, other: torch.Size) -> bool:
    """Whether a shape (N, C, 1, 1), or the same with channels last, meets a map's."""
    return len(shape) == len(other) == 4 and sum(a == 1 < b for a, b in zip(shape, other, strict=True)) >= 2


def _double(leaf: Any) -> Any:
    small = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64
    return leaf.double() if small else leaf

"""Learned positions of a fixed number of patches, interpolated to the grid of an enlarged network.

Positions are weights that a network adds to its tokens, or to the pixels of a map, and that differ between them. They
are found in the trace, whatever they are called: the other operand of the addition is followed back to the map, or the
patches, that it was made of. Beside them, a network has numbers that its constructor worked out from the size of its
images, such as ``img_size`` and ``num_patches``; these are set to what the constructor would have written for the
larger images. Both happen only where the network fails without.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from robustmaps.tracing import IMAGE, Call, Pair, Trace, Value, read_window, size_of

_ADDITIONS = ("add", "add_", "__add__", "__radd__", "__iadd__")
_JOINS = ("cat", "concat", "concatenate")
# Names of numbers that follow from the size of the images: sides, and numbers of patches or tokens.
_SIDES = re.compile(r"(^|_)(img|image|input|grid|feat|feature|resolution)")
_COUNTS = re.compile(r"(patches|positions|embeddings|tokens|seq)")
Place = tuple[tuple[str, ...], str, int]
_KEYS_A = -0.5
"""Of the cubic convolution kernel: the one value that keeps linear and quadratic functions (Keys 1981, doi
10.1109/TASSP.1981.1163711)."""


@dataclass(frozen=True)
class Positions:
    """Positions that a network adds.

    Attributes:
        name: the parameter's or buffer's.
        axis: its axis over all tokens; if ``on_map``, its axis over rows, and the next one is over columns.
        on_map: whether it has an axis each for rows and columns.
        grid: rows and columns of patches.
        lead, trail: tokens before and after the patches, such as a class token.
        maker: the place of the call that makes the map, or the tokens, of the patches: modules, function, number.
    """

    name: str
    axis: int
    on_map: bool
    grid: Pair
    lead: int
    trail: int
    maker: Place | None = None

    def count(self, grid: Pair) -> int:
        """The number of tokens with a grid of that size."""
        return self.lead + math.prod(grid) + self.trail


@dataclass(frozen=True)
class Resized:
    """Positions and the larger grid that they are interpolated to."""

    positions: Positions
    grid: Pair

    def __str__(self) -> str:
        before, after = ("x".join(map(str, grid)) for grid in (self.positions.grid, self.grid))
        return f"{self.positions.name} {before} to {after}"


@dataclass(frozen=True)
class Fitting:
    """What is changed in a network so that it takes a larger grid.

    Attributes:
        images: sizes of images as the network sees them, before and after.
        resized: its positions.
    """

    images: tuple[tuple[Pair, Pair], ...] = ()
    resized: tuple[Resized, ...] = ()

    def apply(self, model: nn.Module) -> None:
        """Change a copy of the network."""
        sides = {**dict(self.images), **{one.positions.grid: one.grid for one in self.resized}}
        counts = {before: after for one in self.resized for before, after in _counted(one)}
        if sides:
            _set_sizes(model, sides, counts)
        for one in self.resized:
            path, _, leaf = one.positions.name.rpartition(".")
            module = model.get_submodule(path)
            old = getattr(module, leaf)
            new = resample(old.detach(), one.positions, one.grid)
            setattr(module, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def find_positions(trace: Trace, model: nn.Module) -> list[Positions]:
    """The positions that a network adds in a traced pass, in the order of their use."""
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    places = {call.index: place for place, call in _places(trace.calls).items()}
    found: dict[str, Positions] = {}
    for call in trace.calls:
        added = [v for v in tree_leaves((call.args, dict(call.kwargs))) if isinstance(v, Value) and v.weights]
        if call.name not in _ADDITIONS or len(added) != 1 or len(call.inputs) != 1:
            continue
        origin = _origin(trace, call.inputs[0])
        if origin is None:
            continue
        maker, grid, lead, trail = origin
        for name in sorted(added[0].weights):
            positions = _positions(name, weights[name], places[maker.index], grid, lead, trail)
            if positions is not None:
                found.setdefault(name, positions)
    return list(found.values())


def fit_larger(found: Sequence[Positions], reached: Iterable[Call], known: Fitting) -> Fitting:
    """A fitting that resizes as well all positions whose larger grid a pass has reached.

    Args:
        found: the positions of the original network.
        reached: the calls of the enlarged network up to where it failed.
        known: the fitting with which it failed.
    """
    made = _places(reached)
    done = {one.positions.name for one in known.resized}
    resized = list(known.resized)
    for positions in found:
        call = made.get(positions.maker) if positions.maker else None
        grid = None if call is None else _grid_of(call, positions)
        if positions.name not in done and grid is not None and grid != positions.grid:
            resized.append(Resized(positions, grid))
    return Fitting(known.images, tuple(resized))


def image_sizes(trace: Trace, factor: float) -> tuple[tuple[Pair, Pair], ...]:
    """The sizes of the images in front of a network's first window, before and after they are enlarged by a factor."""
    sizes = {trace.image_size}
    for call in trace.calls:
        if read_window(call) is not None:
            break
        if call.name == "interpolate" and len(call.shape) == 4:
            sizes.add(size_of(call.shape))
    return tuple((size, (math.floor(size[0] * factor), math.floor(size[1] * factor))) for size in sorted(sizes))


def resample(values: Tensor, positions: Positions, grid: Pair) -> Tensor:
    """Positions for another grid, by cubic convolution; those of other tokens stay as they are.

    A patch is taken to lie at the centre of its share of the image, and the kernel's weights beyond the border are
    left out and the others scaled to sum 1, as PyTorch's bicubic resampling with ``antialias`` does.
    """
    if grid == positions.grid:
        return values
    if not values.is_floating_point():  # numbers of positions, which an embedding looks up
        return torch.arange(positions.count(grid), dtype=values.dtype, device=values.device).view(
            [-1 if axis == positions.axis else 1 for axis in range(values.ndim)]
        )
    rows, columns = positions.grid
    moved = values.movedim(positions.axis, 0)
    if positions.on_map:
        moved = values.movedim((positions.axis, positions.axis + 1), (0, 1)).flatten(0, 1)
    lead, patches, trail = torch.split(moved, [positions.lead, rows * columns, positions.trail])
    body = patches.reshape(rows, columns, -1).double()
    down, right = (_weights(old, new, values) for old, new in zip(positions.grid, grid, strict=True))
    larger = torch.einsum("ai,bj,ijc->abc", down, right, body).to(values.dtype)
    if positions.on_map:
        shaped = larger.reshape(*grid, *moved.shape[1:])
        return shaped.movedim((0, 1), (positions.axis, positions.axis + 1)).contiguous()
    joined = torch.cat([lead, larger.reshape(-1, *moved.shape[1:]), trail])
    return joined.movedim(0, positions.axis).contiguous()


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """The share (new, old) of each old position in each new one."""
    centres = (torch.arange(new, dtype=torch.float64, device=like.device) + 0.5) * old / new - 0.5
    apart = (centres[:, None] - torch.arange(old, dtype=torch.float64, device=like.device)).abs()
    near = ((_KEYS_A + 2) * apart - (_KEYS_A + 3)) * apart**2 + 1
    far = _KEYS_A * (((apart - 5) * apart + 8) * apart - 4)
    weights = torch.where(apart < 1, near, torch.where(apart < 2, far, torch.zeros_like(apart)))
    return weights / weights.sum(1, keepdim=True)


def _origin(trace: Trace, value: Value) -> tuple[Call, Pair, int, int] | None:
    """What tokens were made of: the call that made the patches, their grid, and the tokens before and after them."""
    lead = trail = 0
    tokens: Call | None = None
    while value.source not in (None, IMAGE):
        call = trace.calls[value.source]
        if read_window(call) is not None and size_of(call.shape) != (1, 1):
            return call, size_of(call.shape), lead, trail
        if call.name in _JOINS and isinstance(call.args[0], list | tuple):
            parts = [part for part in call.args[0] if isinstance(part, Value)]
            axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
            value = max((p for p in parts if p.source is not None), key=lambda part: part.shape.numel())
            at = parts.index(value)
            lead += sum(part.shape[axis] for part in parts[:at])
            trail += sum(part.shape[axis] for part in parts[at + 1 :])
            tokens = None
            continue
        if tokens is None and len(call.shape) == 3:
            tokens = call
        value = max(call.inputs, key=lambda one: one.shape.numel())
    if tokens is None:
        return None
    grid = _by_aspect(tokens.shape[1], trace.image_size)
    return None if grid is None else (tokens, grid, lead, trail)


def _by_aspect(count: int, image: Pair) -> Pair | None:
    """The rows and columns of so many square patches of an image; None if they are not square."""
    rows = math.isqrt(count * image[0] // image[1])
    grid = (rows, count // max(rows, 1))
    return grid if math.prod(grid) == count and grid[0] * image[1] == grid[1] * image[0] else None


def _positions(name: str, weight: Tensor, maker: Place, grid: Pair, lead: int, trail: int) -> Positions | None:
    shape, patches = tuple(weight.shape), math.prod(grid)
    for axis in range(len(shape) - 1):
        if shape[axis : axis + 2] == grid and grid != (1, 1):
            return Positions(name, axis, True, grid, 0, 0, maker)
    # A table may have a position for the class token that is added apart: by convention the first.
    for before, after in ((lead, trail), (1, 0)):
        if before + patches + after in shape and patches > 1:
            axis = shape.index(before + patches + after)
            found = Positions(name, axis, False, grid, before, after, maker)
            return found if weight.is_floating_point() or _counts_up(weight) else None
    return None


def _counts_up(numbers: Tensor) -> bool:
    flat = numbers.flatten()
    return numbers.is_meta or bool((flat == torch.arange(len(flat), device=flat.device)).all())


def _grid_of(call: Call, positions: Positions) -> Pair | None:
    """The grid of patches that the same call makes in the enlarged network."""
    if len(call.shape) == 4:
        return size_of(call.shape)
    return _by_aspect(call.shape[1], positions.grid)


def _places(calls: Iterable[Call]) -> dict[Place, Call]:
    """Calls by the modules around them, their function, and their number among the calls alike."""
    seen: Counter[tuple[tuple[str, ...], str]] = Counter()
    found = {}
    for call in calls:
        key = (call.frames, call.name)
        found[*key, seen[key]] = call
        seen[key] += 1
    return found


def first_missing(calls: Iterable[Call], reached: Iterable[Call]) -> Call | None:
    """The first of some calls that another pass has not made in the same place."""
    made = _places(reached)
    return next((call for place, call in _places(calls).items() if place not in made), None)


def _counted(one: Resized) -> Iterator[tuple[int, int]]:
    """Numbers of patches and of tokens, before and after."""
    positions = one.positions
    yield math.prod(positions.grid), math.prod(one.grid)
    yield positions.count(positions.grid), positions.count(one.grid)


def _set_sizes(model: nn.Module, sides: Mapping[Pair, Pair], counts: Mapping[int, int]) -> None:
    """Set the numbers of modules, and of their configurations, that follow from the size of the images."""
    squares = {old[0]: new[0] for old, new in sides.items() if old[0] == old[1] and new[0] == new[1]}
    holders = [held for module in model.modules() for held in (module, getattr(module, "config", None))]
    for holder in {id(held): held for held in holders if hasattr(held, "__dict__")}.values():
        for name, value in list(vars(holder).items()):
            new: object = None
            if _SIDES.search(name) and isinstance(value, tuple | list) and len(value) == 2:
                changed = sides.get((value[0], value[1])) if all(type(side) is int for side in value) else None
                new = list(changed) if changed is not None and isinstance(value, list) else changed
            elif type(value) is int:
                new = squares.get(value) if _SIDES.search(name) else counts.get(value) if _COUNTS.search(name) else None
            if new is not None:
                with suppress(AttributeError):  # a frozen configuration
                    setattr(holder, name, new)

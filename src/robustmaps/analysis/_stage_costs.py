"""Watched passes of a network: its intermediate maps and the cost of each stage.

Calls are counted where PyTorch dispatches functions, so that a position in the trace can be found in any later pass.
Reads of attributes, such as ``requires_grad``, don't count, since hooks of other tools make them too.
"""

import statistics
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from robustmaps.analysis._stages import Stage
from robustmaps.engine.calling import own_copy, parameter_dtype
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import saved_bytes
from robustmaps.engine.modes import copy_of, evaluating, set_evaluating
from robustmaps.models import count_flops
from robustmaps.tracing import READ, function_name

_WARM_UP_RUNS = 2


@dataclass(frozen=True)
class Share:
    """The cost of one stage of a pass, for one image.

    Attributes:
        flops: floating-point operations, as ``torch.utils.flop_counter`` counts them.
        activation_bytes: memory saved for the backward pass of a training step.
        seconds: median time; None if not measured.
    """

    flops: int
    activation_bytes: int
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dict(vars(self))


class CallCounter(TorchFunctionMode):
    """While active, counts calls and reports each.

    Args:
        told: called with the position and the result of each call.
    """

    def __init__(self, told: Callable[[int, Any], None]) -> None:
        super().__init__()
        self.position = -1
        self._told = told

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function and report its result."""
        if function_name(func) == READ:
            return func(*args, **(kwargs or {}))
        self.position += 1
        position = self.position
        result = func(*args, **(kwargs or {}))
        self._told(position, args[0] if result is None else result)
        return result


class _Seen(Exception):  # noqa: N818 - not an error: the rest of the pass is not needed
    """All requested maps have been computed."""


def maps_of(
    model: nn.Module, x: Tensor, stages: Sequence[Stage], take: Callable[[int, Tensor], Tensor], *, stop: bool = False
) -> tuple[list[Tensor], Any]:
    """The result of ``take`` for the last map of each stage, and the network's output.

    Args:
        model: the network, in the mode to run it in.
        x: images (N, C, H, W).
        stages: the stages.
        take: called with a stage's number and its map (N, C, h, w) at once, since later calls may overwrite the map.
        stop: whether to stop the pass after the last map; the output is then None.

    Raises:
        InputError: the network made other calls than when it was traced.
    """
    wanted = {stage.position: number for number, stage in enumerate(stages)}
    taken: dict[int, Tensor] = {}

    def told(position: int, result: Any) -> None:
        number = wanted.get(position)
        if number is None:
            return
        tensor = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
        expected = (len(x), stages[number].channels, *stages[number].map_size)
        if tensor is None or tuple(tensor.shape) != expected:
            raise _strayed(model, stages[number])
        taken[number] = take(number, tensor)
        if stop and len(taken) == len(wanted):
            raise _Seen

    result, own = None, own_copy(x, parameter_dtype(model))
    try:
        with CallCounter(told):
            result = model(own)
    except _Seen:
        pass
    if len(taken) < len(wanted):
        raise _strayed(model, stages[len(taken)])
    return [taken[number] for number in range(len(stages))], result


def shares(model: nn.Module, image: Tensor, stages: Sequence[Stage], *, runs: int = 0) -> tuple[Share, ...]:
    """The cost of each stage and of everything after the last one; calls count for the stage in which they run.

    Args:
        model: the network, which is not changed.
        image: one image (1, C, H, W).
        stages: the stages in order.
        runs: passes to time; 0 for none.
    """
    ends = [stage.position for stage in stages]
    subject = copy_of(model)
    set_evaluating(subject)
    for parameter in subject.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    flops = _flops(subject, image, ends)
    # The difference excludes what is saved once per batch, such as parameters and batch-norm statistics.
    one, two = (_saved_bytes(subject, image.repeat(n, 1, 1, 1), ends) for n in (1, 2))
    with evaluating(model):
        seconds = _seconds(model, image, ends, runs) if runs else [None] * len(flops)
    return tuple(Share(f, after - before, s) for f, before, after, s in zip(flops, one, two, seconds, strict=True))


def _flops(model: nn.Module, image: Tensor, ends: Sequence[int]) -> list[int]:
    totals = [0] * (len(ends) + 1)
    with torch.no_grad(), count_flops() as counter:
        before, image = 0, own_copy(image, parameter_dtype(model))

        def told(position: int, _: Any) -> None:
            nonlocal before
            total = counter.total
            totals[bisect_left(ends, position)] += total - before
            before = total

        with CallCounter(told):
            model(image)
        totals[-1] += counter.total - before
    return totals


def _saved_bytes(model: nn.Module, images: Tensor, ends: Sequence[int]) -> list[int]:
    totals = [0] * (len(ends) + 1)
    watch = CallCounter(lambda *_: None)
    images = own_copy(images.detach().requires_grad_(), parameter_dtype(model))

    def told(size: int) -> None:
        totals[bisect_left(ends, watch.position)] += size

    with torch.enable_grad(), saved_bytes(told, images), watch:
        result = model(images)
    del result
    return totals


def _seconds(model: nn.Module, image: Tensor, ends: Sequence[int], runs: int) -> list[float]:
    boundaries = set(ends)

    def clock() -> float:
        if image.device.type != "cpu":
            torch.accelerator.synchronize(image.device)
        return time.perf_counter()

    def once() -> list[float]:
        times = [clock()]

        def told(position: int, _: Any) -> None:
            if position in boundaries:
                times.append(clock())

        own = own_copy(image, parameter_dtype(model))
        with CallCounter(told):
            model(own)
        times.append(clock())
        return [after - before for before, after in pairwise(times)]

    with torch.no_grad():
        for _ in range(_WARM_UP_RUNS):
            once()
        return [statistics.median(column) for column in zip(*(once() for _ in range(runs)), strict=True)]


def _strayed(model: nn.Module, stage: Stage) -> InputError:
    return InputError(
        f"{type(model).__name__} made other calls than when it was traced, so the map of {stage.name!r} was not found; "
        "expected a network whose calls don't depend on the images"
    )

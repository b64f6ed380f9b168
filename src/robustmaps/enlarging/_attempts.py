"""What can be changed on a network: its steps, found by tracing it, and whether each can go, found by trying."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.text import by
from robustmaps.enlarging._enlargement import Step
from robustmaps.enlarging._relax import Change, fix_head, not_spread, relax
from robustmaps.enlarging._surgery import Upsampling, operate
from robustmaps.models import Cost, measure_cost
from robustmaps.tracing import (
    RUN_ERRORS,
    Head,
    HeadKind,
    Pair,
    Trace,
    Transition,
    find_head,
    find_transitions,
    first_line,
    read_window,
    record,
    shape_copy,
    sights,
    spread_over_steps,
    trace,
)


@dataclass(frozen=True)
class View:
    """What a trace says about the last map.

    Attributes:
        head: what becomes of the last map, None where the network has none.
        stride: how far apart its pixels look, in pixels of the image.
        field_px: what one of its pixels sees.
    """

    head: Head | None
    stride: tuple[float, float] | None
    field_px: tuple[float, float] | None

    @property
    def kind(self) -> HeadKind | None:
        """What becomes of the last map."""
        return None if self.head is None else self.head.kind

    @property
    def map_size(self) -> Pair | None:
        """Height and width of the last map."""
        return None if self.head is None else self.head.map_size


class Attempts:
    """A network, an image, and what was found out about them.

    Attributes:
        model: the network.
        image: one image (1, C, H, W).
        trace: of the network with the image.
        view: what becomes of its last map.
        transitions: the downsampling steps.
        steps: the same for the record, each tried on its own.
    """

    def __init__(self, model: nn.Module, image: Tensor, factor: int) -> None:
        """Trace the network, and try each step with its strides divided by a factor."""
        self.model = model
        self.image = image
        self.trace = trace(model, image)
        self.view = look(self.trace)
        self.transitions = find_transitions(self.trace)
        self.steps = self._try(self.transitions, factor)
        joined = spread_over_steps(self.transitions)
        if len(joined) < len(self.transitions):
            steps = self._try(joined, factor)
            if _free(steps) > _free(self.steps):
                self.transitions, self.steps = joined, steps

    def changes(self, where: Iterable[int], factor: int, *, dilate: bool, upsampled: bool) -> list[Change]:
        """What has to change for some steps to be relaxed, and the images upsampled."""
        return self._changes([self.transitions[i] for i in where], factor, dilate=dilate, upsampled=upsampled)

    def _changes(self, chosen: Sequence[Transition], factor: int, *, dilate: bool, upsampled: bool) -> list[Change]:
        start = None if upsampled else [call for transition in chosen for call in transition.calls]
        changes = [*relax(self.trace, chosen, factor, dilate=dilate), *fix_head(self.trace, after=start)]
        return list({change.call.index: change for change in changes}.values())

    def not_spread(self, where: Iterable[int], factor: int) -> list[str]:
        """The calls behind which dilation does not keep the network's function."""
        return list(map(str, not_spread(self.trace, [self.transitions[i] for i in where], factor)))

    def rehearse(self, changes: Iterable[Change], upsampling: Upsampling | None) -> View | str:
        """Try changes: what becomes of the last map, or why they break the network."""
        shapes_only = self.trace.shapes_only
        subject = shape_copy(self.model) if shapes_only else copy.deepcopy(self.model)
        try:
            enlarged = record(operate(subject, self.trace, changes, upsampling), self.image, shapes_only=shapes_only)
        except RUN_ERRORS as error:
            return f"the network breaks with it: {first_line(error)}"
        if enlarged.output.shape != self.trace.output.shape:
            before, after = tuple(self.trace.output.shape), tuple(enlarged.output.shape)
            return f"the network gives {after} instead of {before} with it"
        view = look(enlarged)
        if not _grew(self.view.map_size, view.map_size):
            stays = f"the last map stays {by(self.view.map_size)} with it"
            return f"{stays}: the step lies on a side branch, or a layer behind it fixes the size"
        return view

    def cost(self, model: nn.Module, latency_runs: int) -> Cost:
        """What the network or an enlarged copy costs for the image, by shapes only unless latency is asked for."""
        if latency_runs or not self.trace.shapes_only:
            return measure_cost(model, self.image, latency_runs=latency_runs)
        return measure_cost(shape_copy(model), self.image.to("meta"))

    def _try(self, transitions: Sequence[Transition], factor: int) -> list[Step]:
        return [
            Step(i, t.stride, t.before, t.after, tuple(map(str, t.calls)), self._obstacle(t, factor))
            for i, t in enumerate(transitions)
        ]

    def _obstacle(self, transition: Transition, factor: int) -> str | None:
        if any(read_window(call) is None for call in transition.calls):
            names = sorted({call.name for call in transition.calls if read_window(call) is None})
            return f"{', '.join(names)} has no stride that could be changed"
        if any(stride > 1 and stride % factor for stride in transition.stride):
            return f"its stride {transition.stride} is no multiple of {factor}"
        result = self.rehearse(self._changes([transition], factor, dilate=False, upsampled=False), None)
        return result if isinstance(result, str) else None


def check_images(example: Tensor) -> None:
    """Refuse what is no batch of images."""
    if example.ndim != 4 or not len(example):
        raise InputError(f"example of shape {tuple(example.shape)}: expected images (N, C, H, W), at least one")


def look(recorded: Trace) -> View:
    """What a trace says about the last map."""
    head = find_head(recorded)
    if head is None or head.map.source is None:
        return View(None, None, None)
    sight = sights(recorded)[head.map.source]
    return View(head, sight.stride_px, sight.field_px)


def _free(steps: Iterable[Step]) -> int:
    return sum(step.obstacle is None for step in steps)


def _grew(before: Pair | None, after: Pair | None) -> bool:
    return before is None or after is None or (after > before and after[0] >= before[0] and after[1] >= before[1])

"""The changes that a network allows: its steps, found by tracing, and whether each can be relaxed, found by trying."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.modes import copy_of, evaluating
from robustmaps.engine.numbers import by
from robustmaps.engine.text import first_line
from robustmaps.enlarging._activation import find_relus
from robustmaps.enlarging._enlargement import Step
from robustmaps.enlarging._fixed import fixed_at
from robustmaps.enlarging._positions import Fitting, find_positions, first_missing, fit_larger, image_sizes
from robustmaps.enlarging._relax import Change, fix_head, not_spread, relax, smooth
from robustmaps.enlarging._replacements import Smoothed
from robustmaps.enlarging._surgery import Upsampling, operate, replace_relus
from robustmaps.models import SMOOTHED, Activation, Cost, Smooth, measure_cost
from robustmaps.tracing import (
    RUN_ERRORS,
    Head,
    HeadKind,
    Pair,
    Trace,
    Transition,
    find_head,
    find_transitions,
    measured_sights,
    reached,
    read_window,
    record,
    shape_copy,
    sights,
    spread_over_steps,
    trace,
)


@dataclass(frozen=True)
class View:
    """A network's last map.

    Attributes:
        head: the call that consumes the last map; None if there is no last map.
        stride: distance in the image between the fields of neighbouring pixels.
        field_px: receptive field of one of its pixels; None if unknown.
    """

    head: Head | None
    stride: tuple[float, float] | None
    field_px: tuple[float, float] | None

    @property
    def kind(self) -> HeadKind | None:
        """The kind of the head."""
        return None if self.head is None else self.head.kind

    @property
    def map_size(self) -> Pair | None:
        """Height and width of the last map."""
        return None if self.head is None else self.head.map_size


@dataclass(frozen=True)
class Rehearsal:
    """Changes that a network was found to take.

    Attributes:
        changes, upsampling: what was tried.
        fitting: what else had to change for it.
        view: the last map with it.
    """

    changes: tuple[Change, ...]
    upsampling: Upsampling | None
    fitting: Fitting
    view: View


class Attempts:
    """A network with an image, its downsampling steps, and the result of trying to relax or smooth each.

    Attributes:
        model: the network.
        image: one image (1, C, H, W).
        trace: the network's trace with the image.
        view: the last map.
        smooth: how maps keep their size, see `Smoothed`; None if they grow.
        activation: what takes the place of ReLU in changed copies; None if it stays.
        relus: the calls of ReLU that it replaces.
        transitions: the downsampling steps.
        steps: the same for the record, each tried on its own.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        factor: int,
        smooth: Smooth | None = None,
        activation: Activation | None = None,
    ) -> None:
        """Trace the network, and try each step with its strides divided by a factor.

        Raises:
            InputError: the network can't be traced, or has no ReLU that another activation could replace.
        """
        self.model = model
        self.image = image
        self.smooth = smooth
        self.activation = activation
        self.trace = trace(model, image)
        self.relus = [] if activation is None else find_relus(self.trace, type(model).__name__, activation)
        self.view = look(self.trace, model)
        self.rule_holds = self.view == look(self.trace)
        self.transitions = find_transitions(self.trace)
        self.steps = self._try(self.transitions, factor)
        joined = spread_over_steps(self.transitions)
        if len(joined) < len(self.transitions):
            steps = self._try(joined, factor)
            if _free(steps) > _free(self.steps):
                self.transitions, self.steps = joined, steps

    def changes(self, where: Iterable[int], factor: int, *, dilate: bool, upsampled: bool) -> list[Change]:
        """The changes that relax some steps, with or without upsampled images."""
        return self._changes([self.transitions[i] for i in where], factor, dilate=dilate, upsampled=upsampled)

    def _changes(self, chosen: Sequence[Transition], factor: int, *, dilate: bool, upsampled: bool) -> list[Change]:
        start = None if upsampled else [call for transition in chosen for call in transition.calls]
        if self.smooth is None:
            changes = [*relax(self.trace, chosen, factor, dilate=dilate), *fix_head(self.trace, after=start)]
        else:
            changes = smooth(self.trace, chosen, factor, self.smooth)
            changes += fix_head(self.trace) if upsampled else []
        return list({change.call.index: change for change in changes}.values())

    def spreads(self, where: Iterable[int], factor: int) -> bool:
        """Whether dilation changes anything: whether a window follows these steps; True where it can't be tried."""
        where, logits = list(where), list[Tensor]()
        if self.image.is_meta:
            return True
        probe = torch.rand(2, *self.image.shape[1:], generator=torch.Generator().manual_seed(0)).to(self.image.device)
        for dilate in (False, True):
            rehearsal = self.rehearse(self.changes(where, factor, dilate=dilate, upsampled=False), None)
            if isinstance(rehearsal, str):
                return True
            network = self.perform(rehearsal)
            with torch.no_grad(), evaluating(network):
                logits.append(network_logits(network, probe))
        return not torch.equal(*logits)

    def not_spread(self, where: Iterable[int], factor: int) -> list[str]:
        """The calls after which dilation does not preserve the network's function."""
        return list(map(str, not_spread(self.trace, [self.transitions[i] for i in where], factor)))

    def rehearse(self, changes: Iterable[Change], upsampling: Upsampling | None) -> Rehearsal | str:
        """Try changes; return the new last map, or the reason why they break the network."""
        changes, fitting = list(changes), Fitting()
        if not changes and upsampling is None:
            return Rehearsal((), None, fitting, self.view)
        try:
            enlarged = self._record(changes, upsampling, fitting)
        except RUN_ERRORS:
            fitted = self._fitted(changes, upsampling)
            if isinstance(fitted, str):
                return fitted
            enlarged, fitting = fitted
        if enlarged.output.shape != self.trace.output.shape:
            before, after = tuple(self.trace.output.shape), tuple(enlarged.output.shape)
            return f"the network returns {after} instead of {before} with it"
        view = look(enlarged)
        if not self.rule_holds:
            view = look(enlarged, operate(copy_of(self.model), self.trace, changes, upsampling, fitting))
        smoothed = upsampling is None and any(isinstance(change.replacement, Smoothed) for change in changes)
        if smoothed and view.map_size != self.view.map_size:
            return f"the last map becomes {by(view.map_size)} instead of {by(self.view.map_size)} with it"
        if not smoothed and not _grew(self.view.map_size, view.map_size):
            stays = f"the last map stays {by(self.view.map_size)} with it"
            return f"{stays}: the step is on a side branch, or a later layer fixes the size"
        return Rehearsal(tuple(changes), upsampling, fitting, view)

    def perform(self, rehearsal: Rehearsal) -> nn.Module:
        """A copy of the network with rehearsed changes, and with the other activation if there is one."""
        changed = copy_of(self.model)
        operate(changed, self.trace, rehearsal.changes, rehearsal.upsampling, rehearsal.fitting)
        if self.activation is not None:
            replace_relus(changed, self.relus, self.activation)
        return changed

    def _fitted(self, changes: Sequence[Change], upsampling: Upsampling | None) -> tuple[Trace, Fitting] | str:
        """A pass with everything resized that the network has for a fixed number of patches, or why it fails."""
        positions = find_positions(self.trace, self.model)
        fitting = Fitting(() if upsampling is None else image_sizes(self.trace, upsampling.factor))
        while True:  # each pass gets beyond the positions that the one before has shown
            try:
                return self._record(changes, upsampling, fitting), fitting
            except RUN_ERRORS as error:
                subject = self._subject(changes, upsampling, fitting)
                calls = reached(subject, self.image, shapes_only=self.trace.shapes_only)
                larger = fit_larger(positions, calls, fitting)
                if larger == fitting:
                    failed = first_missing(self.trace.calls, calls)
                    place = "" if failed is None else f", {fixed_at(self.trace, failed)}"
                    return f"the network fails with it: {first_line(error)}{place}"
                fitting = larger

    def _record(self, changes: Sequence[Change], upsampling: Upsampling | None, fitting: Fitting) -> Trace:
        subject = self._subject(changes, upsampling, fitting)
        return record(subject, self.image, shapes_only=self.trace.shapes_only)

    def _subject(self, changes: Sequence[Change], upsampling: Upsampling | None, fitting: Fitting) -> nn.Module:
        copied = shape_copy(self.model) if self.trace.shapes_only else copy_of(self.model)
        return operate(copied, self.trace, changes, upsampling, fitting)

    def cost(self, model: nn.Module, latency_runs: int) -> Cost:
        """The cost of the network or an enlarged copy for the image, from shapes only unless latency is asked for."""
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
            return f"{', '.join(names)} has no stride to change"
        if any(stride > 1 and stride % factor for stride in transition.stride):
            return f"its stride {transition.stride} is not a multiple of {factor}"
        result = self.rehearse(self._changes([transition], factor, dilate=False, upsampled=False), None)
        return result if isinstance(result, str) else None


def check_images(example: Tensor) -> None:
    """Refuse anything but a batch of images."""
    if example.ndim != 4 or not len(example):
        raise InputError(f"example of shape {tuple(example.shape)}: expected images (N, C, H, W), at least one")


def check_smooth(smooth: str | None, *, dilate: bool) -> None:
    """Refuse an unknown way of smoothing, and one beside dilation."""
    if smooth is None:
        return
    if smooth not in SMOOTHED:
        raise unknown("smooth", smooth, SMOOTHED)
    if dilate:
        raise InputError(f"smooth={smooth!r} with dilate=True: a smoothed map keeps its size; leave dilate out")


def look(recorded: Trace, model: nn.Module | None = None) -> View:
    """The last map of a trace, with its receptive field as measured on the network if that is given."""
    head = find_head(recorded)
    if head is None or head.map.source is None:
        return View(None, None, None)
    seen = sights(recorded)
    stride = seen[head.map.source].stride_px
    tokens = head.call.inputs[0].source
    if tokens is not None and math.inf in seen[tokens].field_px:  # attention between the map and the head
        return View(head, stride, (math.inf, math.inf))
    if model is None:
        return View(head, stride, seen[head.map.source].field_px)
    sight = measured_sights(model, recorded, [head.map.source])[head.map.source]
    return View(head, stride, None if sight is None else sight.field_px)


def _free(steps: Iterable[Step]) -> int:
    return sum(step.obstacle is None for step in steps)


def _grew(before: Pair | None, after: Pair | None) -> bool:
    return before is None or after is None or (after > before and after[0] >= before[0] and after[1] >= before[1])

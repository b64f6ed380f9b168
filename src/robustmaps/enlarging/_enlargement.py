"""The record of an enlargement: its changes and costs, as a value that prints as a table and converts to JSON."""

import math
from dataclasses import dataclass
from typing import Any

from robustmaps.engine.numbers import by, counted, human, stride_text
from robustmaps.engine.tables import Table, table
from robustmaps.enlarging._positions import Resized
from robustmaps.models import ACTIVATIONS, SMOOTHED, Activation, Cost, Smooth
from robustmaps.tracing import HeadKind, Pair


@dataclass(frozen=True)
class Step:
    """A downsampling step of the given network.

    Attributes:
        index: its number, counted from the image, for ``where``.
        stride: stride in height and width.
        before: size of the input maps.
        after: size of the output maps.
        branches: the calls that make the step: module path and function.
        obstacle: the reason why it can't be relaxed; None if it can.
    """

    index: int
    stride: Pair
    before: Pair
    after: Pair
    branches: tuple[str, ...]
    obstacle: str | None = None

    def __str__(self) -> str:
        more = f" and {len(self.branches) - 1} more" if len(self.branches) > 1 else ""
        size = f"{by(self.before)} to {by(self.after)}"
        return f"{self.index}: {size}, stride {stride_text(self.stride)}, {self.branches[0]}{more}"


@dataclass(frozen=True)
class Side:
    """A network before or after the enlargement, for one image.

    Attributes:
        cost: operations, parameters, memory, latency and the size of the last map.
        effective_stride: distance in image pixels between the fields of neighbours in the last map; None if no last
            map was found.
        field_px: height and width of the receptive field of a pixel of the last map, in image pixels; infinite after
            attention; None if no last map was found.
        accuracy: accuracy on the labelled examples, if any.
    """

    cost: Cost
    effective_stride: tuple[float, float] | None
    field_px: tuple[float, float] | None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; an infinite receptive field is null."""
        stride, field_px = self.effective_stride, self.field_px
        return {
            "cost": self.cost.to_dict(),
            "effective_stride": None if stride is None else list(stride),
            "field_px": None if field_px is None or math.inf in field_px else list(field_px),
            "accuracy": self.accuracy,
        }


NOTHING_FOLLOWS = "changes nothing, since no window follows: with and without it, this is one network"


@dataclass(frozen=True)
class Enlargement:
    """The changes to a network, with its costs before and after.

    Attributes:
        network: the network's class.
        image_size: height and width of the images.
        upsample: factor by which images are enlarged.
        upsample_mode: the interpolation.
        factor: divisor of the relaxed steps' strides.
        where: the relaxed steps, by index.
        dilate: whether later windows were dilated to preserve the network's function.
        smooth: how the changed steps average their maps down to the size they had: ``average`` or ``blur``; None if
            the maps grew.
        head: how the network reduces its last map.
        steps: all downsampling steps of the original network.
        before: the original network.
        after: the enlarged network.
        agreement: share of the examples that both networks put in the same class; None if not measured.
        warnings: reasons against this enlargement, in words.
        resized: learned positions that were interpolated to the larger grid.
        spread: whether dilation changed anything; not so where no window follows the relaxed steps.
        larger_images: height and width of the images that the network takes instead, with their own pixels; None if
            it takes the same.
        activation: what takes the place of ReLU; None if it stays.
        relus: the calls of ReLU that it replaces.
    """

    network: str
    image_size: Pair
    upsample: float
    upsample_mode: str
    factor: int
    where: tuple[int, ...]
    dilate: bool
    head: HeadKind | None
    steps: tuple[Step, ...]
    before: Side
    after: Side
    agreement: float | None = None
    warnings: tuple[str, ...] = ()
    resized: tuple[Resized, ...] = ()
    smooth: Smooth | None = None
    spread: bool = True
    larger_images: Pair | None = None
    activation: Activation | None = None
    relus: int = 0

    @property
    def grows(self) -> bool:
        """Whether the last map was to become larger."""
        return self.upsample != 1 or (bool(self.where) and self.smooth is None)

    @property
    def recipe(self) -> dict[str, Any]:
        """The arguments of ``enlarge`` that reproduce it."""
        recipe: dict[str, Any] = {}
        if self.upsample != 1:
            recipe |= {"upsample": self.upsample, "upsample_mode": self.upsample_mode}
        if self.where:
            recipe |= {"factor": self.factor, "where": list(self.where), "dilate": self.dilate}
        if self.smooth is not None:
            recipe["smooth"] = self.smooth
        if self.activation is not None:
            recipe["activation"] = self.activation
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "network": self.network,
            "image_size": list(self.image_size),
            "larger_images": None if self.larger_images is None else list(self.larger_images),
            "recipe": self.recipe,
            "head": self.head,
            "steps": [
                {
                    "index": step.index,
                    "stride": list(step.stride),
                    "before": list(step.before),
                    "after": list(step.after),
                    "branches": list(step.branches),
                    "relaxed": step.index in self.where,
                    "obstacle": step.obstacle,
                }
                for step in self.steps
            ],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "relus": self.relus,
            "positions": [
                {"name": one.positions.name, "before": list(one.positions.grid), "after": list(one.grid)}
                for one in self.resized
            ],
            "agreement": self.agreement,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        parts = [self._title(), str(self._step_table()), str(self._cost_table())]
        if self.resized:
            changed = "; ".join(map(str, self.resized))
            parts.append(f"Learned positions interpolated (bicubic) in the enlarged network only: {changed}.")
        if self.agreement is not None:
            parts.append(f"Same decision before and after on {self.agreement:.1%} of the examples.")
        return "\n\n".join([*parts, *(f"Warning: {warning}" for warning in self.warnings)])

    def _title(self) -> str:
        done = []
        if self.larger_images is not None:
            done.append(f"takes images of {by(self.larger_images)} instead")
        if self.upsample != 1:
            done.append(f"images upsampled by {self.upsample:g} ({self.upsample_mode})")
        if self.where:
            steps = ", ".join(map(str, self.where))
            dilated = ", dilated" if self.spread else f" (dilate {NOTHING_FOLLOWS})"
            then = dilated * self.dilate + ("" if self.smooth is None else f", then {SMOOTHED[self.smooth]}")
            done.append(f"strides of step {steps} divided by {self.factor}{then}")
        if self.activation is not None:
            done.append(f"{ACTIVATIONS[self.activation]} in place of ReLU ({counted(self.relus, 'call')})")
        return f"{self.network}, images of {by(self.image_size)}: {'; '.join(done)}"

    def _step_table(self) -> Table:
        rows = []
        for step in self.steps:
            changed = "relaxed" if self.smooth is None else SMOOTHED[self.smooth]
            change = changed if step.index in self.where else "kept" if step.obstacle is None else "can't be relaxed"
            sizes = f"{by(step.before)} to {by(step.after)}"
            first, *others = step.branches
            by_whom = f"{first} (+{len(others)})" if others else first
            rows.append((step.index, stride_text(step.stride), sizes, change, by_whom))
        return table(("step", "stride", "map", "change", "made by"), rows)

    def _cost_table(self) -> Table:
        a, b = self.before, self.after
        rows: list[tuple[str, ...]] = [
            ("map before the final pooling", by(a.cost.map_size), by(b.cost.map_size), ""),
            ("effective stride", stride_text(a.effective_stride), stride_text(b.effective_stride), ""),
            ("receptive field (px)", by(a.field_px), by(b.field_px), ""),
            _row("operations", a.cost.flops, b.cost.flops, "FLOP"),
            _row("parameters", a.cost.parameters, b.cost.parameters, ""),
            _row("activation memory per image", a.cost.activation_bytes, b.cost.activation_bytes, "B"),
        ]
        if a.cost.latency_s is not None and b.cost.latency_s is not None:
            ratio = f"{b.cost.latency_s / a.cost.latency_s:.2f}x"
            rows.append(("latency (ms)", f"{a.cost.latency_s * 1e3:.2f}", f"{b.cost.latency_s * 1e3:.2f}", ratio))
        if a.accuracy is not None and b.accuracy is not None:
            rows.append(("clean accuracy", f"{a.accuracy:.1%}", f"{b.accuracy:.1%}", ""))
        return table(("", "before", "after", "ratio"), rows)


def _row(name: str, before: int, after: int, unit: str) -> tuple[str, ...]:
    ratio = f"{after / before:.2f}x" if before else ""
    return name, human(before, unit), human(after, unit), ratio

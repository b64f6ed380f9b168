"""The results of an analysis: values that print as tables and convert to JSON."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.analysis._estimate import estimate, finite_only
from robustmaps.analysis._stage_costs import Share
from robustmaps.analysis._stages import Stage
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import budget_text, by, counted, human, stride_text
from robustmaps.engine.tables import Table, table
from robustmaps.models import Cost


@dataclass(frozen=True)
class FeatureGain:
    """The gain of a perturbation on a stage's pooled features, ``<v, z>`` for random unit vectors ``v``.

    Attributes:
        first_order: ``eps`` times the dual norm of the gradient; mean over images and directions.
        reached: gain of projected gradient descent along the first direction; mean over images, None if not measured.
        spread: standard deviation of ``<v, z>`` over the images; None for fewer than two.
    """

    first_order: Measured
    reached: Measured | None
    spread: float | None

    @property
    def relative(self) -> Measured | None:
        """The first-order gain in units of the spread between images."""
        return _scaled(self.first_order, self.spread)

    @property
    def relative_reached(self) -> Measured | None:
        """The reached gain in units of the spread."""
        return _scaled(self.reached, self.spread)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "first_order": self.first_order.to_dict(),
            "reached": _optional(self.reached),
            "spread": self.spread,
            "relative": _optional(self.relative),
            "relative_reached": _optional(self.relative_reached),
        }


@dataclass(frozen=True)
class StageReport:
    """One stage of a network.

    Attributes:
        stage: its position and last map.
        effective_field_px: side of the smallest square with 95 % of the squared input gradient of the map's middle
            pixel.
        share: the cost of the stage.
        gain: the gain on its pooled features.
    """

    stage: Stage
    effective_field_px: int
    share: Share
    gain: FeatureGain

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self.stage.to_dict(),
            "effective_field_px": self.effective_field_px,
            **self.share.to_dict(),
            "gain": self.gain.to_dict(),
        }


@dataclass(frozen=True)
class MarginGain:
    """The gain of a perturbation on the margin, per image.

    Attributes:
        margin: true logit minus the largest other one, positive if the network is right.
        first_order: ``eps`` times the dual norm of the margin's gradient.
        reached: reduction of the margin by projected gradient descent; None if not measured.
    """

    margin: tuple[float, ...]
    first_order: tuple[float, ...]
    reached: tuple[float, ...] | None

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images the network classifies correctly."""
        return np.array(self.margin) > 0

    def relative(self, *, reached: bool = False, among: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """The gain divided by the margin, above 1 if the budget suffices, for correctly classified images.

        Args:
            reached: use the gain of projected gradient descent instead of the first order.
            among: use these images instead, one boolean per image.
        """
        gains = np.array(self.reached if reached and self.reached is not None else self.first_order)
        chosen = self.right if among is None else among
        shares: NDArray[np.float64] = gains[chosen] / np.array(self.margin)[chosen]
        return shares

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        right = bool(self.right.any())
        return {
            "accuracy": float(self.right.mean()),
            "margin": estimate(self.margin, "median").to_dict(),
            "first_order": estimate(self.first_order, "median").to_dict(),
            "reached": None if self.reached is None else estimate(self.reached, "median").to_dict(),
            "relative": estimate(self.relative(), "median").to_dict() if right else None,
            "relative_reached": (
                estimate(self.relative(reached=True), "median").to_dict() if right and self.reached else None
            ),
            "images": {
                "margin": list(self.margin),
                "first_order": list(self.first_order),
                "reached": None if self.reached is None else list(self.reached),
            },
        }


@dataclass(frozen=True)
class Analysis:
    """A network's stages, cost, receptive fields and perturbation gains on some images.

    Attributes:
        network: the network's class.
        image_size: height and width of the images.
        images: number of images for the gains.
        eps: the budget's radius, in units of images in [0, 1].
        norm: the budget's norm.
        steps: steps of projected gradient descent; 0 if not run.
        cost: cost of the whole network, for one image.
        stages: the stages in order.
        rest: cost of everything after the last map.
        margin: the gain on the margin.
    """

    network: str
    image_size: tuple[int, int]
    images: int
    eps: float
    norm: str
    steps: int
    cost: Cost
    stages: tuple[StageReport, ...]
    rest: Share
    margin: MarginGain

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON; null where a network's logits or gradients are not finite."""
        values = {
            "network": self.network,
            "image_size": list(self.image_size),
            "images": self.images,
            "eps": self.eps,
            "norm": self.norm,
            "steps": self.steps,
            "cost": self.cost.to_dict(),
            "stages": [report.to_dict() for report in self.stages],
            "rest": self.rest.to_dict(),
            "margin": self.margin.to_dict(),
        }
        return finite_only(values)

    def tables(self) -> list[Table]:
        """Tables of the maps and their receptive fields, their costs, their gains, and the gain on the margin."""
        maps, costs, gains = [], [], []
        for name, report in zip(short_names(self), self.stages, strict=True):
            stage, gain = report.stage, report.gain
            size = f"{by(stage.map_size)}x{stage.channels}"
            fields = self.field_cells(report)
            maps.append((name, size, stage.pooling, stride_text(stage.stride), *fields))
            costs.append((name, *cost_cells(report.share)))
            relative = (str(gain.relative or "-"), str(gain.relative_reached or "-"))
            gains.append((name, str(gain.first_order), *relative))
        costs.append(("rest", *cost_cells(self.rest)))
        costs.append(("all", *cost_cells(Share(self.cost.flops, self.cost.activation_bytes, self.cost.latency_s))))
        return [
            table(("stage", "map", "then", "stride", "field (px)", "effective (px)"), maps, words=1),
            table(("stage", "operations", "memory", "time"), costs, words=1),
            table(("stage", "gain [95 %]", "gain / spread", f"PGD-{self.steps} / spread"), gains, words=1),
            self._margin_table(),
        ]

    def field_cells(self, report: StageReport) -> tuple[str, str]:
        """Theoretical and effective receptive field, in pixels and as a share of the image's side."""
        effective = (float(report.effective_field_px),) * 2
        return _field(report.stage.field_px, self.image_size), _field(effective, self.image_size)

    def _margin_table(self) -> Table:
        margin = self.margin
        rows = [
            ("classified right", f"{int(margin.right.sum())} of {self.images}"),
            ("margin", str(estimate(margin.margin, "median"))),
            ("gain", str(estimate(margin.first_order, "median"))),
        ]
        if margin.reached is not None:
            rows.append((f"gain, PGD-{self.steps}", str(estimate(margin.reached, "median"))))
        if margin.right.any():
            rows.append(("gain / margin", str(estimate(margin.relative(), "median"))))
            if margin.reached is not None:
                relative = estimate(margin.relative(reached=True), "median")
                rows.append((f"gain / margin, PGD-{self.steps}", str(relative)))
        return table(("", "median [95 %]"), rows, words=1)

    @property
    def title(self) -> str:
        """A line about the network, the images and the budget."""
        return (
            f"{self.network}, images of {by(self.image_size)} px; {budget_text(self.norm, self.eps)} on "
            f"{counted(self.images, 'image')}"
        )

    def __str__(self) -> str:
        return "\n\n".join([self.title, *map(str, self.tables())])


def short_names(analysis: Analysis) -> list[str]:
    """The stages' names without the enclosing modules that they share."""
    paths = [report.stage.name.split(".") for report in analysis.stages]
    shared = 0
    while len(paths) > 1 and all(len(p) > shared + 1 and p[shared] == paths[0][shared] for p in paths):
        shared += 1
    return [".".join(path[shared:]) for path in paths]


def cost_cells(share: Share) -> tuple[str, str, str]:
    """Operations, memory and time with their units."""
    seconds = "-" if share.seconds is None else f"{1e3 * share.seconds:.3g} ms"
    return human(share.flops, "FLOP"), human(share.activation_bytes, "B"), seconds


def _field(field_px: tuple[float, ...], image_size: tuple[int, int]) -> str:
    """The field on its larger axis, and its share of the image."""
    if any(map(math.isnan, field_px)):
        return "unknown"
    if math.inf in field_px:
        return "all"
    side, axis = max((field, axis) for axis, field in enumerate(field_px))
    return f"{side:g} ({100 * side / image_size[axis]:.0f} %)"


def _scaled(gain: Measured | None, unit: float | None) -> Measured | None:
    if gain is None or not unit:
        return None
    return Measured(gain.value / unit, gain.low / unit, gain.high / unit, gain.count)


def _optional(value: Measured | None) -> dict[str, Any] | None:
    return None if value is None else value.to_dict()

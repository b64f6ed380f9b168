"""Two analyses side by side: a network before and after enlargement, on the same images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from robustmaps.analysis._analysis import Analysis, short_names
from robustmaps.analysis._estimate import estimate, finite_only, ratio
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import budget_text, by
from robustmaps.engine.tables import Table, table

ARROW = " → "


@dataclass(frozen=True)
class ComparedAnalyses:
    """Analyses of a network before and after enlargement, with the same images and budget.

    Attributes:
        before: the original network.
        after: the enlarged one.
    """

    before: Analysis
    after: Analysis

    def __post_init__(self) -> None:
        for name in ("images", "eps", "norm", "steps", "image_size"):
            one, other = getattr(self.before, name), getattr(self.after, name)
            if one != other:
                raise InputError(f"analyses with {name}={one!r} and {name}={other!r}: expected equal values")

    def relative_ratio(self, *, reached: bool) -> Measured | None:
        """The ratio of medians of gain / margin, on the images that both classify correctly; None without any.

        Args:
            reached: use the gain of projected gradient descent instead of the first order.
        """
        both = self.before.margin.right & self.after.margin.right
        if not both.any():
            return None
        after, before = (a.margin.relative(reached=reached, among=both) for a in (self.after, self.before))
        return ratio(after, before)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        first, reached = (self.relative_ratio(reached=r) for r in (False, True))
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "relative_ratio": None if first is None else finite_only(first.to_dict()),
            "relative_reached_ratio": (
                None if reached is None or not self.before.steps else finite_only(reached.to_dict())
            ),
        }

    def tables(self) -> list[Table]:
        """The tables of an analysis, with before and after in each cell, or one value if unchanged.

        If the stages can't be matched, the tables of both analyses follow each other.
        """
        a, b = self.before, self.after
        if len(a.stages) != len(b.stages):
            return [*a.tables()[:3], *b.tables()[:3], self._margin_table()]
        (maps, costs, *_), (maps_after, costs_after, *_) = a.tables(), b.tables()
        merged = [_merge(maps, maps_after, drop="then"), _merge(costs, costs_after)]
        return [*merged, self._gain_table(), self._margin_table()]

    def _gain_table(self) -> Table:
        a, b = self.before, self.after
        rows = []
        for name, one, other in zip(short_names(a), a.stages, b.stages, strict=True):
            pair = (one.gain, other.gain)
            rows.append((name, *(str(gain.relative or "-") for gain in pair)))
            if a.steps:
                rows.append((f"{name}, PGD-{a.steps}", *(str(gain.relative_reached or "-") for gain in pair)))
        return table(("gain / spread [95 %]", "before", "after"), rows, words=1)

    def _margin_table(self) -> Table:
        a, b = self.before, self.after
        rows = [("classified right", *(f"{int(s.margin.right.sum())} of {s.images}" for s in (a, b)), "")]
        for name, one, other in (
            ("margin", a.margin.margin, b.margin.margin),
            ("gain", a.margin.first_order, b.margin.first_order),
            (f"gain, PGD-{a.steps}", a.margin.reached, b.margin.reached),
        ):
            if one is not None and other is not None:
                values = (str(estimate(one, "median")), str(estimate(other, "median")))
                rows.append((name, *values, str(ratio(other, one)) if name != "margin" else ""))
        for reached in (False, True)[: 1 + bool(a.steps)]:
            change = self.relative_ratio(reached=reached)
            if change is not None:
                how = f", PGD-{a.steps}" if reached else ""
                each = (estimate(s.margin.relative(reached=reached), "median") for s in (a, b))
                rows.append((f"gain / margin{how}", *map(str, each), str(change)))
        return table(("median [95 %]", "before", "after", "ratio"), rows, words=1)

    @property
    def title(self) -> str:
        """A line about the network, the images and the budget."""
        a = self.before
        return f"{a.network}, images of {by(a.image_size)} px; {budget_text(a.norm, a.eps)} on {a.images} images"

    @property
    def note(self) -> str:
        """A sentence on the images behind the ratios."""
        both = int(np.sum(self.before.margin.right & self.after.margin.right))
        share = f"{both} of {self.before.images}"
        return f"Ratios of gain / margin are over the images that both classify correctly ({share}), paired by image."

    def __str__(self) -> str:
        return "\n\n".join([self.title, *map(str, self.tables()), self.note])


def _merge(before: Table, after: Table, *, drop: str = "") -> Table:
    keep = [number for number, column in enumerate(before.columns) if column != drop]
    pairs = zip(before.rows, after.rows, strict=True)
    rows = [[_pair(str(one[number]), str(other[number])) for number in keep] for one, other in pairs]
    return table([before.columns[number] for number in keep], rows, words=1)


def _pair(before: str, after: str) -> str:
    """``2x2 → 4x4``; a shared unit appears once."""
    if before == after:
        return before
    number, _, unit = before.partition(" ")
    return f"{number if unit and after.endswith(f' {unit}') else before}{ARROW}{after}"

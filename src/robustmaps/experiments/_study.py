"""What a report is on: the runs in a folder, by configuration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustmaps.evaluation import Difference, paired_difference
from robustmaps.experiments._records import RunRecord
from robustmaps.experiments._variants import Variant, Yardstick, only_enlarged, verdicts

NONE = "-"
"""In a table, for what is not known."""
NOT_EVALUATED = "Nothing has been evaluated yet. This does it:"
MOST_LINES = 8
"""Configurations in one plot of lines: as many as there are colours."""


@dataclass(frozen=True)
class Study:
    """What a report is on.

    Attributes:
        folder: as it was given.
        variants: the most robust first.
        yardstick: the evaluation by which they are compared, None where there is none.
    """

    folder: Path
    variants: tuple[Variant, ...]
    yardstick: Yardstick | None

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs."""
        return tuple(run for variant in self.variants for run in variant.runs)

    @property
    def compared(self) -> tuple[Variant, ...]:
        """The configurations that have been evaluated alike."""
        return tuple(variant for variant in self.variants if variant.evaluated)

    @property
    def best(self) -> Variant:
        """The most robust configuration; the first where nothing has been evaluated."""
        return self.variants[0]

    @property
    def reference(self) -> Variant | None:
        """What the best is measured against: the cheapest that differs only in its maps, else the cheapest."""
        others = [variant for variant in self.compared if variant is not self.best]
        twins = [variant for variant in others if only_enlarged(variant.config, self.best.config)]
        return min(twins or others, key=lambda v: (v.cost.flops if v.cost else np.inf, v.name), default=None)

    @property
    def tints(self) -> dict[str, int]:
        """A colour for each configuration, the same in every plot."""
        first = [self.best, *([self.reference] if self.reference else [])]
        return {name: n for n, name in enumerate(dict.fromkeys(v.name for v in (*first, *self.variants)))}

    @property
    def evaluate(self) -> str:
        """The command that makes an evaluation."""
        return f"robustmaps evaluate {self.best.runs[0].folder} --attack autoattack"


def difference(one: Variant, other: Variant, which: str = "robust_correct") -> Difference | None:
    """How much more often ``one`` is right than ``other``, over the seeds that both have; None where there are none."""
    seeds = sorted(one.evaluated.keys() & other.evaluated.keys())
    if not seeds:
        return None
    a, b = (verdicts((variant.evaluated[seed] for seed in seeds), which) for variant in (other, one))
    return paired_difference(a, b)

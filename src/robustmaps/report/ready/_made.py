"""A ready study whose runs are made, and what is rendered of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from robustmaps.config import EvaluationConfig, ReadyStudy, Scale
from robustmaps.engine.progress import Watcher
from robustmaps.engine.tables import Table
from robustmaps.report.sections._evaluations import Found
from robustmaps.runs import Options, RunRecord, read_run
from robustmaps.studies import Statistics, SweepPlan, Variant, by_yardstick, evaluation_names, statistics_of
from robustmaps.training import RunFolder


@dataclass(frozen=True)
class Rendered:
    """A table, and a function that draws the figure with what is to be said of it, if there is one."""

    table: Table
    draw: Callable[[Path], None] | None = None
    caption: str = ""


@dataclass(frozen=True)
class Made:
    """A study whose runs are made.

    Attributes:
        ready: the study.
        scale: full or small.
        plan: its runs.
        corruptions: a folder in the form of CIFAR-10-C; the test images are corrupted here where None.
        watcher: receives progress reports.
    """

    ready: ReadyStudy
    scale: Scale
    plan: SweepPlan
    corruptions: Path | None
    watcher: Watcher

    @property
    def title(self) -> str:
        """The title, which does not pass the small version off as the study."""
        return self.ready.title + (" (small version)" if self.scale == "cpu" else "")

    @cached_property
    def study(self) -> Statistics:
        """The statistics of the finished runs."""
        return statistics_of([read_run(run.folder) for run in self.plan.runs], self.plan.out)

    @cached_property
    def variants(self) -> list[Variant]:
        """The configurations in the order of the study."""
        order = [run.folder.name for run in self.plan.runs]
        return sorted(self.study.variants, key=lambda variant: min(order.index(run.name) for run in variant.runs))

    @cached_property
    def evaluations(self) -> dict[str, Found]:
        """By configuration, the study's own evaluations that all of them have, whatever else its runs were given."""
        found = {variant.name: by_yardstick([self._own(run) for run in variant.runs]) for variant in self.variants}
        shared = set.intersection(*(set(of) for of in found.values()))
        return {name: {stick: e for stick, e in of.items() if stick in shared} for name, of in found.items()}

    def _own(self, run: RunRecord) -> RunRecord:
        """The run with the evaluations that the study asks for; with all, where its weights are gone that tell them."""
        if not RunFolder(run.folder).best.is_file():
            return run
        names = {name for wanted in self.plan.study.evaluations for name in evaluation_names(run, wanted)}
        return replace(run, evaluations={name: each for name, each in run.evaluations.items() if name in names})

    @property
    def wanted(self) -> EvaluationConfig:
        """The first evaluation of the study."""
        return self.plan.study.evaluations[0]

    def options(self, variant: Variant) -> Options:
        """Where to compute, and on which images."""
        return Options.of(self.wanted, variant.config.training, self.watcher)

"""What to spend a budget of training on: longer, or on larger maps, at the same operations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from robustmaps.config import (
    AttackConfig,
    EvaluationConfig,
)
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.measured import Measured
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation import Comparison, Evaluation, compare_all, over_seeds
from robustmaps.figures import plot_lines
from robustmaps.networks import Resolver
from robustmaps.studies._configurations import bounded
from robustmaps.studies._plan import SweepPlan, image_hashes, made_evaluation, plan_sweep
from robustmaps.studies._processes import Executor
from robustmaps.studies._progress import SweepState
from robustmaps.studies._sweep import RunsFailed, claim_study, sweep
from robustmaps.studies._ways import MEASURED, AdvicePlan, Way, shortened, study_of
from robustmaps.training import RunFolder

_MOST_STEPS = 10


@dataclass(frozen=True)
class Confirmed:
    """A way with its verdicts on test images.

    Attributes:
        way: the way.
        folders: its run folders, one per seed.
        evaluations: of each.
    """

    way: Way
    folders: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def clean(self) -> Measured:
        """Mean clean accuracy over seeds."""
        return bounded(self.evaluations, "clean_correct")

    @property
    def robust(self) -> Measured:
        """Mean robust accuracy over seeds."""
        return bounded(self.evaluations, "robust_correct")

    def curve(self, validation: int) -> list[tuple[float, Measured]]:
        """Robust accuracy on this many validation images by what was spent, as a multiple of the given training."""
        histories = [RunFolder(folder).read_history() for folder in self.folders]
        found = []
        for records in zip(*histories, strict=False):
            rates = [r.get("validation_robust_accuracy", r.get("validation_clean_accuracy")) for r in records]
            if None not in rates:
                found.append((self.way.spent_by(records[0]["epoch"]), _mean(rates, validation)))
        return found


def _mean(rates: Sequence[float], images: int) -> Measured:
    if len(rates) == 1:
        return Measured.wilson(rates[0], images)
    mean = over_seeds(rates)
    return Measured(mean.value, max(0.0, mean.low), min(1.0, mean.high), percent=True)


def _ticks(times: float) -> range:
    """Round numbers from 0 to a multiple of the given training, ten steps or fewer."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    return range(0, int(times) + 1, next(step for step in steps if times / step <= _MOST_STEPS))


def _beats(difference: Comparison) -> bool:
    return difference.shown and difference.value > 0


@dataclass(frozen=True)
class Advice:
    """What to spend the budget on.

    Attributes:
        plan: what was done.
        screened: robust accuracy on validation images after a third of the budget, by name of the way.
        confirmed: the ways that were confirmed, the given training first and training longer second.
        differences: robust accuracy of each against training longer, then of each against the given training;
            corrected for all of them.
    """

    plan: AdvicePlan
    screened: Mapping[str, Measured]
    confirmed: tuple[Confirmed, ...]
    differences: tuple[Comparison, ...]

    def difference(self, a: str, b: str) -> Comparison:
        """The comparison of b with a."""
        return next(one for one in self.differences if (one.a, one.b) == (a, b))

    @property
    def winner(self) -> Confirmed:
        """The best that is shown to beat both others: training longer, and what was given, which costs less.

        Else training longer, if shown to be better than what was given; else the best that is; else what was given.
        """
        given, longer, *others = self.confirmed

        def gain(one: Confirmed) -> float:
            return self.difference(given.way.name, one.way.name).value

        better = [one for one in (longer, *others) if _beats(self.difference(given.way.name, one.way.name))]
        best = [one for one in better if one is not longer and _beats(self.difference(longer.way.name, one.way.name))]
        if not best and longer in better:
            return longer
        return max(best or better, key=gain, default=given)

    def sentence(self) -> str:
        """The answer, its figure, and the doubt."""
        given, longer, *others = self.confirmed
        best = self.winner
        if best is longer:
            rest = max(
                (self.difference(longer.way.name, o.way.name) for o in others), key=lambda c: c.value, default=None
            )
            text = f"Train longer ({longer.way.name}): {self.difference(given.way.name, longer.way.name).sentence()}."
            doubt = "" if rest is None else f" No other way is shown to be better at this cost: {rest.sentence()}."
            return text + doubt
        if best is given:
            tried = max((c for c in self.differences if c.a == given.way.name), key=lambda c: c.value)
            return (
                f"Keep to the given training: nothing is shown to be worth {self.plan.times:.3g} x as much. Of what "
                f"was tried, {tried.b} comes first: {tried.sentence()}."
            )
        against = self.difference(longer.way.name, best.way.name)
        if _beats(against):
            return f"Spend it on {best.way.name}: {against.sentence()}."
        gained = self.difference(given.way.name, best.way.name).sentence()
        return (
            f"Spend it on {best.way.name}: {gained}. It is not shown to be better than training longer: "
            f"{against.sentence()}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "budget": {"times": self.plan.times, "training_flops": self.plan.times * self.plan.training_flops},
            "sentence": self.sentence(),
            "winner": self.winner.way.name,
            "ways": [
                {
                    **way.to_dict(),
                    **({"screened": self.screened[way.name].to_dict()} if way.name in self.screened else {}),
                }
                for way in self.plan.ways
            ],
            "confirmed": [
                {
                    "name": one.way.name,
                    "folders": [str(folder) for folder in one.folders],
                    "clean_accuracy": one.clean.to_dict(),
                    "robust_accuracy": one.robust.to_dict(),
                }
                for one in self.confirmed
            ],
            "differences": [one.to_dict() for one in self.differences],
        }


def advise(
    plan: AdvicePlan,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    timed: bool = True,
    executor: Executor | None = None,
    resolver: Resolver | None = None,
    watcher: Callable[[SweepState], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Advice:
    """Find out what to spend a budget on. The same call resumes after a stop, a kill or a failure.

    All ways are trained with one seed and a third of the budget, and judged by a3 on validation images. The most
    promising ones, the given training and training longer get all of it, with several seeds, and are compared on test
    images, which nothing was chosen by, in pairs of the same seed and image.

    Args:
        plan: by `plan_advice`.
        jobs: as there, like the next three.
        threads: the same.
        timed: the same.
        resolver: the same.
        executor: as for `sweep`.
        watcher: receives progress reports.
        should_stop: if True, saves all runs and raises `Interrupted`.

    Raises:
        RunsFailed: a run failed.
        InputError: other files are in the way.
        Interrupted: ``should_stop`` returned True.
    """
    path = plan.out / "advice.json"
    claim_study(plan.screening)
    claim(path, ours=json_with("budget", "sentence", "ways"))
    measured = plan.out / MEASURED
    claim(measured, ours=json_with("times", "relative", "given"))
    # Written before all else, so that the picture of a call that was killed is known as ours.
    claim(plan.out / "advice.png", ours=lambda _: measured.exists())
    write_json(measured, plan.measured.to_dict())
    _made(plan.screening, executor, watcher, should_stop)
    screened = {way.name: _evaluations(plan.screening, shortened(way))[1][0].robust_accuracy for way in plan.ways[1:]}
    best = sorted(plan.others, key=lambda way: (-screened[way.name].value, way.name))[: plan.finalists]
    finals = (plan.ways[0], plan.ways[1], *best)
    judged = EvaluationConfig(AttackConfig("a3"), samples=plan.samples)
    study = study_of(finals, plan.seeds, judged, "confirmed", resolver or Resolver())
    confirming = plan_sweep(study, plan.out / "confirmed", jobs=jobs, threads=threads, timed=timed, resolver=resolver)
    _made(confirming, executor, watcher, should_stop)
    confirmed = tuple(Confirmed(way, *_evaluations(confirming, way)) for way in finals)
    names = [one.way.name for one in confirmed]
    verdicts = {one.way.name: np.stack([e.robust_correct for e in one.evaluations]) for one in confirmed}
    pairs = [(names[1], name) for name in names[2:]] + [(names[0], name) for name in names[1:]]
    advice = Advice(plan, screened, confirmed, compare_all(verdicts, pairs=pairs))
    kind = "clean" if plan.ways[0].config.defense.defense == "standard" else "robust"
    plot_lines(
        plan.out / "advice.png",
        {one.way.name: one.curve(plan.validation) for one in confirmed},
        f"training {'time' if plan.by_time else 'operations'}, as a multiple of the given training",
        f"What to spend training on: {kind} accuracy on validation images",
        {float(tick): f"{tick:,}x" for tick in _ticks(plan.times)},
    )
    write_json(path, advice.to_dict())
    return advice


def _made(
    plan: SweepPlan,
    executor: Executor | None,
    watcher: Callable[[SweepState], None],
    should_stop: Callable[[], bool],
) -> None:
    result = sweep(plan, executor=executor, watcher=watcher, should_stop=should_stop)
    if result.failed:
        raise RunsFailed.of(result.failed)


def _evaluations(plan: SweepPlan, way: Way) -> tuple[tuple[Path, ...], tuple[Evaluation, ...]]:
    """The folders and evaluations of a way in a study that was made, one per seed."""
    seeds = sorted({run.point.config.training.seed for run in plan.runs})
    names = [replace(way.config, training=replace(way.config.training, seed=seed)).name for seed in seeds]
    folders = tuple(plan.out / name for name in names)
    wanted, images = plan.study.evaluations[0], image_hashes()
    made = [made_evaluation(folder, wanted, images) for folder in folders]
    for folder, one in zip(folders, made, strict=True):
        if one is None:
            raise InputError(f"{folder}: its evaluation is gone; the same command makes it again")
    return folders, tuple(one for one in made if one is not None)

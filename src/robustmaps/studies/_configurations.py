"""Runs of one configuration with several seeds, and the evaluation that compares them."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps import models
from robustmaps.config import RunConfig, to_mapping
from robustmaps.defenses import title_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.evaluation import Evaluation, deviation_over_seeds, over_seeds, rate_over_seeds
from robustmaps.models import Cost
from robustmaps.networks import ENLARGED_BY, image_cost, load_data, name_configurations, open_evaluated
from robustmaps.runs import RunRecord, Yardstick
from robustmaps.training import INCIDENTAL


@dataclass(frozen=True)
class Variant:
    """One configuration with its runs, one per seed.

    Attributes:
        name: a name that distinguishes it from the others.
        runs: the runs, in the order of their seeds.
        evaluations: per run the evaluation that compares it; None if it was not made.
        cost: the network's cost for one image; None if not known yet.
    """

    name: str
    runs: tuple[RunRecord, ...]
    evaluations: tuple[Evaluation | None, ...]
    cost: Cost | None

    @property
    def config(self) -> RunConfig:
        """The configuration, with the first seed."""
        return self.runs[0].config

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.config.training.seed for run in self.runs)

    @property
    def evaluated(self) -> dict[int, Evaluation]:
        """The evaluation that compares the run, per seed."""
        return {s: e for s, e in zip(self.seeds, self.evaluations, strict=True) if e is not None}

    @cached_property
    def clean(self) -> Measured:
        """Mean clean accuracy over seeds; needs an evaluation."""
        return bounded(self.evaluated.values(), "clean_correct")

    @cached_property
    def robust(self) -> Measured:
        """Mean robust accuracy over seeds; needs an evaluation."""
        return bounded(self.evaluated.values(), "robust_correct")

    @cached_property
    def deviations(self) -> tuple[float | None, float | None]:
        """Sample standard deviations of clean and robust accuracy over seeds; None for fewer than two."""
        rates = [(e.clean_accuracy.value, e.robust_accuracy.value) for e in self.evaluated.values()]
        if not rates:
            return None, None
        clean, robust = zip(*rates, strict=True)
        return deviation_over_seeds(clean), deviation_over_seeds(robust)

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        figures = {"clean_accuracy": self.clean, "robust_accuracy": self.robust} if self.evaluated else {}
        return {
            "name": self.name,
            "seeds": list(self.seeds),
            "runs": [run.name for run in self.runs],
            **{
                name: {"value": one.value, "interval": list(one.interval), "deviation": deviation}
                for (name, one), deviation in zip(figures.items(), self.deviations, strict=False)
            },
        }


def bounded(evaluations: Iterable[Evaluation], which: str, *, student: bool = True) -> Measured:
    """The share of correctly classified images over seeds, with a 95 % interval.

    For one seed this is Wilson's interval. For several it is the wider of two: the bootstrap's over seeds and images,
    which ignores how few the seeds are, and Student's over seeds, which ignores the images.

    Args:
        evaluations: evaluations on the same images, one per seed.
        which: ``clean_correct``, ``robust_correct`` or ``consistent_correct``, which all of them need to have.
        student: False to use only the bootstrap.
    """
    each = list(evaluations)
    if len(each) == 1:
        right = getattr(each[0], which)
        return Measured.share(int(right.sum()), len(right))
    right = verdicts(each, which)
    over = rate_over_seeds(right)
    low, high = over.interval
    if student:
        second = over_seeds(right.mean(1))
        low, high = min(low, second.low), max(high, second.high)
    if low == high:
        # All verdicts are equal; that does not rule out a few others (Wilson).
        low, high = Measured.share(round(over.value * right.shape[1]), right.shape[1]).interval
    return Measured(over.value, max(0.0, low), min(1.0, high), percent=True)


def verdicts(evaluations: Iterable[Evaluation], which: str) -> NDArray[np.bool_]:
    """Booleans (seeds, images)."""
    return np.stack([getattr(evaluation, which) for evaluation in evaluations])


def by_yardstick(runs: Sequence[RunRecord]) -> dict[Yardstick, list[Evaluation]]:
    """Evaluations by what they share, one per seed."""
    found: dict[Yardstick, list[Evaluation]] = {}
    for run in runs:
        for stick, evaluation in {Yardstick.of(e): e for e in run.evaluations.values()}.items():
            found.setdefault(stick, []).append(evaluation)
    return found


def choose_yardstick(runs: Sequence[RunRecord], among: Collection[Yardstick] | None = None) -> Yardstick | None:
    """The evaluation that most configurations have, then most runs; None if there are none.

    One of other weights than the best, or of training images, is chosen only if there is no other.
    Ties go to the training budget, then to the most images, then to the attacks that broke the most, then to the worst
    case of several attacks.
    """
    found: dict[Yardstick, list[tuple[RunRecord, Evaluation]]] = {}
    for run in runs:
        for stick, evaluation in {Yardstick.of(e): e for e in run.evaluations.values()}.items():
            found.setdefault(stick, []).append((run, evaluation))

    def rank(stick: Yardstick) -> tuple[Any, ...]:
        mine = found[stick]
        defenses = [run.config.defense for run, _ in mine]
        return (
            stick.weights is None,
            stick.split != "train",  # which measures no new images
            len({_key(run) for run, _ in mine}),
            len(mine),
            sum((defense.norm, defense.eps) == (stick.norm, stick.eps) for defense in defenses),
            stick.count,
            -sum(evaluation.robust_accuracy.value for _, evaluation in mine),
            stick.alone,
            stick.attacks,
            stick.images,
        )

    return max((stick for stick in found if among is None or stick in among), key=rank, default=None)


def evaluated_alike(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs in parts that can be compared, each with one evaluation that all its configurations have.

    The first part has the evaluation that most configurations have. Runs without an evaluation join the first part with
    the same data, or form their own.
    """
    configurations: dict[str, list[RunRecord]] = {}
    for run in runs:
        configurations.setdefault(_key(run), []).append(run)
    waiting = [each for each in configurations.values() if not any(run.evaluations for run in each)]
    left = [each for each in configurations.values() if each not in waiting]
    parts: list[list[RunRecord]] = []
    while left:
        yardstick = choose_yardstick([run for each in left for run in each])
        mine = [each for each in left if any(_matching(run, yardstick) for run in each)]
        parts.append([run for each in mine for run in each])
        left = [each for each in left if each not in mine]
    homeless: list[RunRecord] = []
    for each in waiting:
        data = each[0].config.data.data
        home = next((part for part in parts if any(run.config.data.data == data for run in part)), homeless)
        home.extend(each)
    return [*parts, homeless] if homeless else parts


def group(runs: Sequence[RunRecord], yardstick: Yardstick | None) -> tuple[Variant, ...]:
    """Group runs by configuration, the most robust first, those without an evaluation last.

    Raises:
        InputError: there are no runs.
    """
    if not runs:
        raise InputError("no runs: expected a run folder, or a folder of runs")
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    names = name_configurations([each[0].config for each in groups.values()])
    variants = []
    for name, each in zip(names, groups.values(), strict=True):
        ordered = sorted(each, key=lambda run: run.config.training.seed)
        chosen = tuple(_matching(run, yardstick) for run in ordered)
        variants.append(Variant(name, tuple(ordered), chosen, _cost(ordered)))
    return tuple(sorted(variants, key=_rank))


def only_enlarged(one: RunConfig, other: RunConfig) -> bool:
    """Whether two configurations differ only in the size of their maps."""
    first, second = (
        {k: v for k, v in to_mapping(config).items() if k not in {*ENLARGED_BY, "seed", *INCIDENTAL}}
        for config in (one, other)
    )
    return first == second


def factors(config: RunConfig, configs: Sequence[RunConfig]) -> tuple[str, str]:
    """The network and the defence of a configuration, in words; empty where all configurations share it."""
    networks, defenses = {c.model.model for c in configs}, {c.defense.defense for c in configs}
    return (
        models.title_of(config.model.model) if len(networks) > 1 else "",
        title_of(config.defense.defense) if len(defenses) > 1 else "",
    )


def _key(run: RunRecord) -> str:
    """The configuration without its seed and without keys that have no influence on results."""
    values: Mapping[str, Any] = to_mapping(replace(run.config, training=replace(run.config.training, seed=0)))
    return json.dumps({key: value for key, value in values.items() if key not in INCIDENTAL}, default=str)


def _matching(run: RunRecord, yardstick: Yardstick | None) -> Evaluation | None:
    return next((e for e in run.evaluations.values() if Yardstick.of(e) == yardstick), None)


def _cost(runs: Sequence[RunRecord]) -> Cost | None:
    """The cost of the runs' network, as one of them recorded it, or else from its weights."""
    for run in runs:
        if run.recorded_cost is not None:
            return Cost.from_dict(run.recorded_cost)
    for run in runs:
        try:
            return image_cost(open_evaluated(run.folder).model, load_data(run.config.data))
        except InputError:
            continue  # no weights yet
    return None


def _rank(variant: Variant) -> tuple[float, str]:
    robust = [e.robust_accuracy.value for e in variant.evaluated.values()]
    return (-float(np.mean(robust)) if robust else 1.0, variant.name)

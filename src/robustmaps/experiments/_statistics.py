"""What runs say together: configurations over seeds, and each against the others. No PyTorch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.engine.numbers import as_fraction
from robustmaps.evaluation import Comparison, Evaluation, SeedStatistics, compare_all, over_seeds
from robustmaps.experiments._config import to_mapping
from robustmaps.experiments._listing import choose_evaluation
from robustmaps.experiments._records import RunRecord
from robustmaps.training import INCIDENTAL

_SEED = "seed"


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed, evaluated alike.

    Attributes:
        label: what tells it from the others, in words.
        values: the configuration's keys that differ between configurations.
        runs: the runs, by rising seed.
        evaluations: one for each run.
    """

    label: str
    values: Mapping[str, Any]
    runs: tuple[RunRecord, ...]
    evaluations: tuple[Evaluation, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The runs' seeds."""
        return tuple(run.config.training.seed for run in self.runs)

    @cached_property
    def clean(self) -> SeedStatistics:
        """Clean accuracy over seeds."""
        return over_seeds([evaluation.clean_accuracy.value for evaluation in self.evaluations])

    @cached_property
    def robust(self) -> SeedStatistics:
        """Robust accuracy over seeds."""
        return over_seeds([evaluation.robust_accuracy.value for evaluation in self.evaluations])

    def verdicts(self, seeds: Sequence[int]) -> NDArray[np.bool_]:
        """Which images withstood the attack (seeds, images)."""
        return np.stack([self.evaluations[self.seeds.index(seed)].robust_correct for seed in seeds])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "label": self.label,
            "values": dict(self.values),
            "seeds": list(self.seeds),
            "runs": [run.name for run in self.runs],
            "clean_accuracy": self.clean.to_dict(),
            "robust_accuracy": self.robust.to_dict(),
        }


@dataclass(frozen=True)
class Statistics:
    """Configurations, the most robust first, and what is shown of their differences.

    Attributes:
        configurations: sorted by mean robust accuracy.
        comparisons: of all pairs that were evaluated alike and share seeds, corrected for how many there are.
        notes: what was left out, and why.
    """

    configurations: tuple[Configuration, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The best configuration against each of the others, no stronger than the data."""
        if not self.configurations:
            return []
        best = self.configurations[0].label
        return [one.sentence() for one in self.comparisons if best in (one.a, one.b)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "configurations": [each.to_dict() for each in self.configurations],
            "comparisons": [one.to_dict() for one in self.comparisons],
            "sentences": self.sentences(),
            "notes": list(self.notes),
        }


def statistics_of(records: Sequence[RunRecord], *, evaluation: str | None = None) -> Statistics:
    """Put runs together that differ only in the seed, and compare what was evaluated alike.

    Args:
        records: the runs; those without an evaluation are left out.
        evaluation: a pattern for names of evaluations; see `choose_evaluation`.
    """
    names = [choose_evaluation(record, evaluation) for record in records]
    chosen = [
        (record, record.evaluations[name]) for record, name in zip(records, names, strict=True) if name is not None
    ]
    notes = []
    if len(chosen) < len(records):
        notes.append(f"{len(records) - len(chosen)} runs have no evaluation")
    groups: dict[tuple[str, str], list[tuple[RunRecord, Evaluation]]] = {}
    for record, found in sorted(chosen, key=lambda pair: pair[0].config.training.seed):
        groups.setdefault((_without_seed(record), _identity(found)), []).append((record, found))
    configurations = _labelled(list(groups.values()))
    order = sorted(range(len(configurations)), key=lambda i: -configurations[i].robust.mean)
    sorted_ones = tuple(configurations[i] for i in order)
    comparisons: list[Comparison] = []
    alike: dict[str, list[Configuration]] = {}
    for each in sorted_ones:
        alike.setdefault(_identity(each.evaluations[0]), []).append(each)
    if len(alike) > 1:
        notes.append(f"{len(alike)} kinds of evaluation; only what was evaluated alike is compared")
    for members in alike.values():
        comparisons += _compared(members, notes)
    return Statistics(sorted_ones, tuple(comparisons), tuple(notes))


def _compared(members: Sequence[Configuration], notes: list[str]) -> tuple[Comparison, ...]:
    if len(members) < 2:
        return ()
    seeds = sorted(set.intersection(*(set(each.seeds) for each in members)))
    if not seeds:
        notes.append("no seed is common to all configurations, so none are compared")
        return ()
    if any(len(each.seeds) > len(seeds) for each in members):
        notes.append(f"compared over the {len(seeds)} seeds that all configurations have")
    return compare_all({each.label: each.verdicts(seeds) for each in members})


def _labelled(groups: Sequence[Sequence[tuple[RunRecord, Evaluation]]]) -> list[Configuration]:
    flats = [to_mapping(group[0][0].config) for group in groups]
    keys = [key for key in (flats[0] if flats else {}) if key not in INCIDENTAL and key != _SEED]
    keys = [key for key in keys if len({flat[key] for flat in flats}) > 1]
    labels = [_label({key: flat[key] for key in keys}) or flat["model"] for flat in flats]
    for index, label in enumerate(labels):
        if labels.count(label) > 1:  # they differ in how they were evaluated
            found = groups[index][0][1]
            labels[index] = f"{label} ({found.norm}, eps {as_fraction(found.eps)}, {len(found.verdicts)} images)"
    for index, label in enumerate(labels):
        if labels.count(label) > 1:
            labels[index] = f"{label} #{index + 1}"
    return [
        Configuration(
            label, {key: flat[key] for key in keys}, tuple(r for r, _ in group), tuple(found for _, found in group)
        )
        for label, flat, group in zip(labels, flats, groups, strict=True)
    ]


def _label(values: Mapping[str, Any]) -> str:
    """Values that speak for themselves stand alone: a network, strides, a defence, data."""
    alone = ("model", "strides", "defense", "data")
    shown = [
        str(value) if key in alone else f"{key} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in values.items()
        if value is not None
    ]
    return " ".join(shown)


def _without_seed(record: RunRecord) -> str:
    left_out = {*INCIDENTAL, _SEED}
    return repr([(key, value) for key, value in to_mapping(record.config).items() if key not in left_out])


def _identity(evaluation: Evaluation) -> str:
    return repr((evaluation.images_sha256, evaluation.seed, [sorted(a.items(), key=str) for a in evaluation.attacks]))

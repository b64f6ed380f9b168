"""Statistics over runs: configurations over seeds, and comparisons between them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.engine.numbers import counted
from robustmaps.engine.text import visible
from robustmaps.evaluation import Comparison, compare_all
from robustmaps.runs import RunRecord, Yardstick
from robustmaps.studies._configurations import (
    Variant,
    bounded,
    by_yardstick,
    choose_yardstick,
    evaluated_alike,
    group,
    only_enlarged,
)


@dataclass(frozen=True)
class Statistics:
    """Runs by configuration, and their statistically tested differences.

    Attributes:
        folder: the folder of the runs.
        variants: the configurations, the most robust first, those without an evaluation last.
        yardstick: the evaluation that compares them; None if there is none.
        title: a title for these runs among several parts of a study; empty for a single part.
    """

    folder: Path
    variants: tuple[Variant, ...]
    yardstick: Yardstick | None
    title: str = ""

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs."""
        return tuple(run for variant in self.variants for run in variant.runs)

    @property
    def compared(self) -> tuple[Variant, ...]:
        """The configurations with this evaluation."""
        return tuple(variant for variant in self.variants if variant.evaluated)

    @property
    def best(self) -> Variant:
        """The most robust configuration, or the first if nothing has been evaluated."""
        return self.variants[0]

    @cached_property
    def columns(self) -> dict[Yardstick, dict[str, Measured]]:
        """Robust accuracy by configuration under each evaluation with this budget and these images, a worst case last.

        Empty if there is only one, which is `compared` itself.
        """
        of, found = self.yardstick, {variant.name: by_yardstick(variant.runs) for variant in self.variants}
        if of is None:
            return {}
        sticks = {stick: None for each in found.values() for stick in each}
        same = [stick for stick in sticks if (stick.norm, stick.eps, stick.images) == (of.norm, of.eps, of.images)]
        if len(same) < 2:
            return {}
        return {
            stick: {name: bounded(each[stick], "robust_correct") for name, each in found.items() if stick in each}
            for stick in sorted(same, key=lambda stick: (stick.alone, stick.label))
        }

    @cached_property
    def families(self) -> tuple[tuple[Variant, ...], ...]:
        """The compared configurations, in groups that differ only in their maps, cheapest first.

        The first is the reference for its family. It is chosen by cost, not by the verdicts, so that comparisons with
        it are valid. If no two configurations differ only in their maps, all form one family.
        """
        families: list[list[Variant]] = []
        for variant in self.compared:
            mine = next((f for f in families if only_enlarged(f[0].config, variant.config)), None)
            if mine is None:
                families.append([variant])
            else:
                mine.append(variant)
        if all(len(family) == 1 for family in families):
            families = [list(self.compared)] if self.compared else []
        return tuple(tuple(sorted(family, key=_cost)) for family in families)

    @cached_property
    def gains(self) -> dict[str, Comparison]:
        """Robust accuracy of each configuration against the cheapest of its family, if they share seeds."""
        found = {}
        for plain, *others in self.families:
            if others:
                family = {variant.name: self._verdicts[variant.name] for variant in (plain, *others)}
                pairs = [(plain.name, other.name) for other in others]
                found.update({comparison.b: comparison for comparison in compare_all(family, pairs=pairs)})
        return found

    @cached_property
    def leads(self) -> tuple[Comparison, ...]:
        """The most robust configuration against every other, corrected for all pairs, since verdicts chose it."""
        if len(self.compared) < 2:
            return ()
        name = self.best.name
        found = {c.b if c.a == name else c.a: c for c in compare_all(self._verdicts) if name in (c.a, c.b)}
        return tuple(
            found[v.name] if found[v.name].b == name else found[v.name].flipped()
            for v in self.compared[1:]
            if v.name in found
        )

    @property
    def lead(self) -> Comparison | None:
        """The most robust configuration against the next; None if they share no seed."""
        return next((one for one in self.leads if one.a == self.compared[1].name), None)

    @property
    def best_is_shown(self) -> bool:
        """Whether the most robust configuration is significantly more robust than every other."""
        return len(self.leads) == len(self.compared) - 1 and all(one.shown and one.value > 0 for one in self.leads)

    @cached_property
    def _verdicts(self) -> dict[str, dict[int, NDArray[np.bool_]]]:
        return {v.name: {s: e.robust_correct for s, e in v.evaluated.items()} for v in self.compared}

    def sentences(self) -> list[str]:
        """The most robust configuration against the next, and each against the cheapest of its family."""
        known: dict[frozenset[str], str] = {}
        for one in (*([self.lead] if self.lead else []), *self.gains.values()):
            known.setdefault(frozenset((one.a, one.b)), one.sentence())
        return list(known.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on omitted runs."""
        notes = []
        without = sum(each is None for variant in self.variants for each in variant.evaluations)
        if without and self.yardstick is not None:
            notes.append(f"{without} of {len(self.runs)} runs have not been evaluated with {self.yardstick.short}")
        if len({tuple(variant.evaluated) for variant in self.compared}) > 1:
            notes.append("configurations have different seeds; each pair is compared over its common seeds")
        return tuple(notes)

    def __repr__(self) -> str:
        counts = f"{counted(len(self.variants), 'configuration')}, {counted(len(self.runs), 'run')}"
        best = f", best {self.best.name}: {self.best.robust} robust" if self.compared else ""
        return f"Statistics({self.folder}: {counts}{best})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            [variant.name, str(len(variant.seeds)), *(str(one) if one is not None else "" for one in figures)]
            for variant in self.variants
            for figures in [(variant.clean, variant.robust) if variant.evaluated else (None, None)]
        ]
        lines = [["configuration", "seeds", "clean [95 %]", "robust [95 %]"], *rows]
        cells = [
            "".join(f"<{tag}>{escape(visible(text))}</{tag}>" for text in line)
            for line, tag in zip(lines, ["th", *["td"] * len(rows)], strict=True)
        ]
        caption = "" if self.yardstick is None else f"<caption>{escape(visible(self.yardstick.text))}</caption>"
        return f"<table>{caption}{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row per configuration and columns for the bounds of every interval.

        Shares are in [0, 1]; what was not evaluated or not measured is missing.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_pandas: needs pandas; pip install pandas") from None
        rows = []
        for variant in self.variants:
            row: dict[str, Any] = {"configuration": variant.name, "seeds": len(variant.seeds)}
            if variant.evaluated:
                for name, one, deviation in zip(
                    ("clean", "robust"), (variant.clean, variant.robust), variant.deviations, strict=True
                ):
                    row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_sd": deviation}
            if variant.cost is not None:
                row |= {"flops": variant.cost.flops, "parameters": variant.cost.parameters}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            **({"part": self.title} if self.title else {}),
            "evaluation": None if self.yardstick is None else self.yardstick.text,
            "configurations": [variant.to_dict() for variant in self.variants],
            "columns": {
                stick.label: {name: rate.to_dict() for name, rate in each.items()}
                for stick, each in self.columns.items()
            },
            "lead": None if self.lead is None else self.lead.to_dict(),
            "gains": {name: one.to_dict() for name, one in self.gains.items()},
            "sentences": self.sentences(),
            "notes": list(self.notes),
        }

    @property
    def reference(self) -> Variant | None:
        """The reference for the best: the cheapest of its family, or the next if the best is the cheapest."""
        family = next((family for family in self.families if self.best in family), ())
        if len(family) < 2:
            return None
        return family[0] if self.best is not family[0] else next(v for v in self.compared[1:] if v in family)

    @property
    def tints(self) -> dict[str, int]:
        """The colour of each configuration, the same in every plot."""
        first = [self.best, *([self.reference] if self.reference else [])]
        return {name: n for n, name in enumerate(dict.fromkeys(v.name for v in (*first, *self.variants)))}

    def shown(self, count: int) -> tuple[Variant, ...]:
        """At most ``count`` configurations for a plot: the most robust ones and the reference for the best."""
        return tuple(v for v in self.variants if self.tints[v.name] < count)


def statistics_of(records: Sequence[RunRecord], folder: str | Path = ".") -> Statistics:
    """Group runs that differ only in the seed, and compare them by their most common evaluation.

    Args:
        records: the runs.
        folder: the folder of the runs, for titles.

    Raises:
        InputError: there are no runs.
    """
    yardstick = choose_yardstick(records)
    return Statistics(Path(folder), group(records, yardstick), yardstick)


def statistics_by_part(records: Sequence[RunRecord], folder: str | Path = ".") -> tuple[Statistics, ...]:
    """The same for runs with different evaluations, such as on several data sets or at several radii.

    Args:
        records: the runs.
        folder: the folder of the runs, for titles.

    Returns:
        One per data set, radius or attack, the one with the most configurations first. Runs in different ones are not
        compared.

    Raises:
        InputError: there are no runs.
    """
    parts = [statistics_of(part, folder) for part in evaluated_alike(records) or [list(records)]]
    if len(parts) == 1:
        return tuple(parts)
    return tuple(replace(part, title=title) for part, title in zip(parts, _titles(parts), strict=True))


def _titles(parts: Sequence[Statistics]) -> list[str]:
    """The first of these that is unique: data; attack and radius; all three; attack, radius and images."""
    data = [", ".join(dict.fromkeys(Path(v.config.data.data).name for v in part.variants)) for part in parts]
    short = ["not evaluated" if part.yardstick is None else part.yardstick.short for part in parts]
    text = ["not evaluated" if part.yardstick is None else part.yardstick.text for part in parts]
    options = [data, short, [f"{a}, {b}" for a, b in zip(data, short, strict=True)], text]
    for titles in options:
        if len(set(titles)) == len(titles):
            return titles
    return [f"{number}. {a}, {b}" for number, (a, b) in enumerate(zip(data, text, strict=True), 1)]


def _cost(variant: Variant) -> tuple[float, str]:
    return (variant.cost.flops if variant.cost else np.inf, variant.name)

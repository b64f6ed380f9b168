"""The comparison of two runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustmaps.config import needs_trust, to_mapping
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import SHOWN_OF_HASH
from robustmaps.engine.numbers import human
from robustmaps.engine.tables import NONE, Table, percent_cell, points_cell, table
from robustmaps.engine.text import shell
from robustmaps.evaluation import Comparison, Evaluation, compare_all
from robustmaps.networks import name_runs
from robustmaps.runs import RunRecord, Yardstick, read_result
from robustmaps.studies._configurations import Variant, bounded, choose_yardstick, group
from robustmaps.training import INCIDENTAL


@dataclass(frozen=True)
class ComparedRuns:
    """Two runs compared on the same images, under the same attacks.

    Attributes:
        runs: both runs.
        names: their names, which differ.
        yardstick: the evaluation that both have.
        clean, robust: accuracy of the second minus the first, paired by image.
        consistent: the same of consistent accuracy; None if one of them lacks it.
        table: the figures of both.
        settings: the configuration keys that differ, with both values.
        warnings: reasons not to trust the evaluations, each with its run, ``A`` or ``B``.
    """

    runs: tuple[RunRecord, RunRecord]
    names: tuple[str, str]
    yardstick: Yardstick
    clean: Comparison
    robust: Comparison
    consistent: Comparison | None
    table: Table
    settings: Table
    warnings: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The answer in words, no stronger than the data."""
        text = self.robust.sentence().removesuffix(")")
        return f"{text[0].upper()}{text[1:]}; McNemar p = {self.robust.mcnemar_p:.2g})."

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {
            "runs": [str(run.folder) for run in self.runs],
            "names": list(self.names),
            "attacks": self.yardstick.text,
            "sentence": self.sentence(),
            "clean_difference": self.clean.to_dict(),
            "robust_difference": self.robust.to_dict(),
            **({} if self.consistent is None else {"consistent_difference": self.consistent.to_dict()}),
            "figures": [dict(zip(self.table.columns, map(str, row), strict=True)) for row in self.table.rows],
            "warnings": list(self.warnings),
            "settings": {str(row[0]): [str(cell) for cell in row[1:]] for row in self.settings.rows},
        }


def compare_runs(first: str | Path, second: str | Path) -> ComparedRuns:
    """Compare two networks by the strongest evaluation that both have.

    Args:
        first: a run, a folder of evaluations of a network that was not trained here, a folder that `robustmaps
            enlarge` saved, or the file of one evaluation.
        second: another one.

    Raises:
        InputError: one is none of these, both are the same, or they have no evaluation in common.
    """
    runs = (read_result(first), read_result(second))
    _check_two(first, second, runs)
    common = set.intersection(*({Yardstick.of(e) for e in run.evaluations.values()} for run in runs))
    yardstick = choose_yardstick(runs, common)
    if yardstick is None:
        allowed = ["--allow-code"] * needs_trust(runs[0].config)
        raise InputError(
            f"{first} and {second} have no evaluation in common; evaluate both with the same attack on the same "
            f"images, such as: {shell('robustmaps', 'evaluate', first, '--attack', 'autoattack', *allowed)}"
        )
    a, b = (group([run], yardstick)[0] for run in runs)
    (one,), (other,) = a.evaluated.values(), b.evaluated.values()
    names = _names(runs)
    clean, robust = (_compare(one, other, which, names) for which in ("clean_correct", "robust_correct"))
    measured = one.misclassified is not None and other.misclassified is not None
    consistent = _compare(one, other, "consistent_correct", names) if measured else None
    each = [{Yardstick.of(e): e for e in run.evaluations.values()} for run in runs]
    rest = [(stick, each[0][stick], each[1][stick]) for stick in sorted(common - {yardstick}, key=lambda s: s.text)]
    figures = _figures(a, b, clean, robust, consistent, rest)
    warnings = tuple(f"{name}: {text}" for name, of in (("A", one), ("B", other)) for text in of.warnings)
    return ComparedRuns(runs, names, yardstick, clean, robust, consistent, figures, _settings(runs), warnings)


def _check_two(first: str | Path, second: str | Path, runs: tuple[RunRecord, RunRecord]) -> None:
    """Refuse one result given twice, whose differences would all be zero."""
    one, other = runs
    if one.folder.resolve() == other.folder.resolve() and {*one.evaluations} == {*other.evaluations}:
        what = f"{first} is" if str(first) == str(second) else f"{first} and {second} are"
        raise InputError(f"{what} the same network twice, so nothing can differ; name two networks or two evaluations")


def _names(runs: tuple[RunRecord, RunRecord]) -> tuple[str, str]:
    """The names of both; those of the columns where their configurations are the same."""
    first, second = name_runs([run.config for run in runs])
    return (first, second) if first != second else ("A", "B")


def _compare(a: Evaluation, b: Evaluation, which: str, names: tuple[str, str] = ("A", "B")) -> Comparison:
    one, other = names
    return compare_all({one: getattr(a, which), other: getattr(b, which)})[0]


def _figures(
    a: Variant,
    b: Variant,
    clean: Comparison,
    robust: Comparison,
    consistent: Comparison | None,
    others: Sequence[tuple[Yardstick, Evaluation, Evaluation]],
) -> Table:
    rows: list[tuple[object, ...]] = []
    for name, which, found in (
        ("clean accuracy", "clean_correct", clean),
        ("robust accuracy", "robust_correct", robust),
        *([] if consistent is None else [("consistent accuracy", "consistent_correct", consistent)]),
    ):
        rates = (percent_cell(bounded(v.evaluated.values(), which)) for v in (a, b))
        rows.append((name, *rates, points_cell(found.difference)))
    for stick, one, other in others:
        cells = (percent_cell(each.robust_accuracy) for each in (one, other))
        rows.append((f"robust: {stick.text}", *cells, points_cell(_compare(one, other, "robust_correct").difference)))
    if a.cost is not None and b.cost is not None:
        for name, field, unit in (
            ("forward pass", "flops", "FLOP"),
            ("parameters", "parameters", ""),
            ("activation memory", "activation_bytes", "B"),
        ):
            before, after = getattr(a.cost, field), getattr(b.cost, field)
            rows.append((name, human(before, unit), human(after, unit), f"x {after / before:.2f}"))
        rows.append(("last map", *("x".join(map(str, v.cost.map_size or ())) for v in (a, b) if v.cost), ""))
    if any(v.runs[0].history for v in (a, b)):
        rows.append(("epoch of the weights", *(v.runs[0].kept or NONE for v in (a, b)), ""))
        rows.append(("training", *(f"{v.runs[0].seconds:.3g} s" if v.runs[0].history else NONE for v in (a, b)), ""))
    return table(("figure", "A", "B", "B - A"), rows)


def _settings(runs: tuple[RunRecord, RunRecord]) -> Table:
    one, other = (to_mapping(run.config) for run in runs)
    known = [key for key in one if key not in INCIDENTAL and all(run.knows(key) for run in runs)]
    keys = [key for key in known if one[key] != other[key]]
    return table(("setting", "A", "B"), [(key, _shown(key, one[key]), _shown(key, other[key])) for key in keys])


def _shown(key: str, value: object) -> object:
    if value is None:
        return NONE
    return str(value)[:SHOWN_OF_HASH] if key.endswith("_sha256") else value

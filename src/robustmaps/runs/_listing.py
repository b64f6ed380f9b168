"""Runs as rows: listed, filtered and sorted, without PyTorch."""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from robustmaps.attacks import called
from robustmaps.config import field_names
from robustmaps.engine.errors import unknown
from robustmaps.engine.measured import Measured
from robustmaps.evaluation import Evaluation
from robustmaps.runs._record import RunRecord
from robustmaps.runs._where import parse_condition

_AUTOATTACK = re.compile(r"(autoattack[a-z-]*?)-(?:linf|l2|l1)-")
FIGURES = (
    *("name", "status", "clean", "clean_low", "clean_high", "robust", "robust_low", "robust_high"),
    *("images", "attack", "validation_clean", "validation_robust"),
    *("best_epoch", "epochs_done", "seconds", "flops", "parameters", "evaluation", "folder"),
)
RUN_COLUMNS = (*FIGURES, *field_names())
"""The columns of a row: figures, then all configuration keys."""


def list_runs(
    records: Sequence[RunRecord], *, where: str | None = None, sort: str | None = None, evaluation: str | None = None
) -> list[dict[str, Any]]:
    """The matching runs as rows of `RUN_COLUMNS`, sorted; missing values are None.

    Args:
        records: the runs.
        where: a condition; see `parse_condition`.
        sort: a column, or ``-column`` for descending order; runs without a value come last. None sorts by name.
        evaluation: a pattern for the names of evaluations, such as ``autoattack*``; see `choose_evaluation`.

    Raises:
        InputError: a column is unknown, or the condition can't be parsed.
    """
    keep = parse_condition(where, RUN_COLUMNS) if where is not None else lambda _: True
    rows = [row for row in (as_row(record, evaluation) for record in records) if keep(row)]
    if sort is None:
        return rows
    column = sort.removeprefix("-").replace("-", "_")
    if column not in RUN_COLUMNS:
        raise unknown("column", sort.removeprefix("-"), RUN_COLUMNS)
    present = [row for row in rows if row[column] is not None]
    try:
        present.sort(key=lambda row: row[column], reverse=sort.startswith("-"))
    except TypeError:
        present.sort(key=lambda row: str(row[column]), reverse=sort.startswith("-"))
    return [*present, *(row for row in rows if row[column] is None)]


def as_row(record: RunRecord, evaluation: str | None = None) -> dict[str, Any]:
    """The row of a run."""
    name = choose_evaluation(record, evaluation)
    found = None if name is None else record.evaluations[name]
    best = record.history[record.best_epoch - 1] if record.best_epoch else {}
    cost = record.recorded_cost or {}
    return {
        "name": record.name,
        "status": record.status,
        **_with_bounds("clean", None if found is None else found.clean_accuracy),
        **_with_bounds("robust", None if found is None else found.robust_accuracy),
        "images": None if found is None else len(found.verdicts),
        "attack": None if found is None else _attack(name or "", found),
        "validation_clean": best.get("validation_clean_accuracy"),
        "validation_robust": best.get("validation_robust_accuracy"),
        "best_epoch": record.best_epoch,
        "epochs_done": len(record.history),
        "seconds": None if record.status == "evaluated" else record.seconds,
        "flops": cost.get("flops"),
        "parameters": cost.get("parameters"),
        "evaluation": name,
        "folder": str(record.folder),
        **record.settings,
    }


def _with_bounds(name: str, rate: Measured | None) -> dict[str, float | None]:
    """An accuracy and its 95 % interval."""
    values = (None, None, None) if rate is None else (rate.value, *rate.interval)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def choose_evaluation(record: RunRecord, pattern: str | None = None) -> str | None:
    """The name of the evaluation that represents a run; None if there is none.

    Among those whose names match the pattern, evaluations of the best weights come first, then those of new images, of
    the training budget, then those with the most images, then the one with the lowest robust accuracy.
    """

    def rank(name: str) -> tuple[bool, bool, bool, int, float]:
        evaluation: Evaluation = record.evaluations[name]
        own = (evaluation.norm, evaluation.eps) == (record.config.defense.norm, record.config.defense.eps)
        other = evaluation.weights is not None
        return other, evaluation.split == "train", not own, -len(evaluation.verdicts), evaluation.robust_accuracy.value

    names = [name for name in record.evaluations if pattern is None or fnmatch(name, pattern)]
    return min(names, key=rank, default=None)


def differing(rows: Sequence[dict[str, Any]], shown: Sequence[str] | None = None) -> list[str]:
    """The configuration keys that differ between rows, or ``shown`` if given.

    Raises:
        InputError: a column is unknown.
    """
    if shown is not None:
        for name in shown:
            if name not in RUN_COLUMNS:
                raise unknown("column", name, RUN_COLUMNS)
        return list(shown)
    return [key for key in field_names() if len({row[key] for row in rows}) > 1]


def _attack(name: str, found: Evaluation) -> str:
    """The attacks; AutoAttack's parts have the name that their file begins with."""
    whole = _AUTOATTACK.match(name.rpartition("/")[2]) if len(found.attacks) > 1 else None
    return whole[1] if whole else "+".join(map(called, found.attacks))

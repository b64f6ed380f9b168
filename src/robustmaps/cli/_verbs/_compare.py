"""``robustmaps compare``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output

if TYPE_CHECKING:
    from robustmaps.runs import RunRecord

DESCRIPTION = """Compare two networks, paired by image, by the strongest evaluation that both have: runs, evaluated
networks of your own (evaluation/NAME), folders that `robustmaps enlarge` saved, or two evaluations."""


@dataclass(frozen=True)
class Arguments:
    """Options of the comparison.

    Attributes:
        a: run folder, folder of evaluations, saved enlargement, or file of an evaluation
        b: another one; differences are B minus A
        json: print the comparison as one JSON object
    """

    a: tyro.conf.Positional[Path]
    b: tyro.conf.Positional[Path]
    json: bool = False


def _about(column: str, name: str, run: "RunRecord") -> str:
    return f"{column}: {run.name if name == column else f'{name} ({run.name})'}"


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "compare", DESCRIPTION)
    from robustmaps.studies import compare_runs

    done = compare_runs(given.a, given.b)
    texts: list[object] = [
        done.sentence(),
        *(_about(*each) for each in zip("AB", done.names, done.runs, strict=True)),
        done.table,
        f"Robust accuracy: {done.yardstick.text}. Brackets: 95 % intervals.",
    ]
    if done.settings.rows:
        texts.append(done.settings)
    texts += [f"Note: {warning}" for warning in done.warnings]
    Output(given.json).result(done.to_dict(), *texts)

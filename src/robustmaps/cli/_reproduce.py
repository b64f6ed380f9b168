"""``robustmaps reproduce``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching
from robustmaps.engine.tables import table

DESCRIPTION = """Make a run again from its configuration, evaluate it again, and compare figures, weights and verdicts.
With the same software on the same CPU they are the same bit for bit. Exit code 1 if anything differs."""


@dataclass(frozen=True)
class Arguments:
    """Options of the reproduction.

    Attributes:
        run: run folder
        out: folder that receives the new run
        epochs: number of first epochs to make again and compare, without evaluations (default: the whole run)
        json: print the comparison as one JSON object
    """

    run: tyro.conf.Positional[Path]
    out: Path = Path("reproduced")
    epochs: int | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "reproduce", DESCRIPTION)
    from robustmaps.runs import NotReproduced, reproduce

    with watching() as watch:
        done = reproduce(given.run, given.out, epochs=given.epochs, watcher=watch)
    texts: list[object] = [done.sentence()]
    rows = [
        (each.name, each.recorded.robust_accuracy, each.again.robust_accuracy, each.different, each.comparison or "")
        for each in done.evaluations
        if each.again is not None
    ]
    if rows:
        texts.append(table(("evaluation", "recorded", "again", "verdicts that differ", "difference"), rows))
    if done.environment:
        texts.append(table(("environment", "recorded", "now"), done.environment, words=3))
    Output(given.json).result(done.to_dict(), *texts, f"New run: {done.folder}")
    if not done.identical:
        raise NotReproduced(f"{done.recorded.name} was not reproduced bit for bit")

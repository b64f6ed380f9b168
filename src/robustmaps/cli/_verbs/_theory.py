"""``robustmaps theory``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """Measure how the perturbation gain of random and trained networks depends on the size of the map before
average and max pooling, and fit the exponents: about -1/2 and 0 (robustmaps explain theory)."""


@dataclass(frozen=True)
class Arguments:
    """Options of the laboratory.

    Attributes:
        draws: random networks per point
        seed: seed of all random draws
        networks: trained networks per pool, each from another seed (0 leaves them out)
        epochs: epochs of their training
        out: folder for theory.json and theory.png (default: nothing is written)
        json: print the result as one JSON object
    """

    draws: int = 20
    seed: int = 0
    networks: int = 5
    epochs: int = 10
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "theory", DESCRIPTION)
    from robustmaps.studies import theory

    options = {name: value for name, value in vars(given).items() if name != "json"}
    with watching() as watch:
        done = theory(**options, watcher=watch)
    Output(given.json).result(
        done.to_dict(),
        f"Perturbation gain against the pixels n of the pooled map, {given.draws} draws:",
        done.found.exponents(),
        *(f"Written: {path}" for path in done.files),
    )

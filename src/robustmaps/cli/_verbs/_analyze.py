"""``robustmaps analyze``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustmaps.cli._terminal._options import AnyNetwork, AnySurgery, Budget, Computing, SplitImages
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """Show for each stage of a network how large its maps are, what they see, what they cost, and how far a
perturbation can drive them. With --upsample or --where, show the enlarged network beside it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the analysis.

    Attributes:
        steps: steps of projected gradient descent (0 leaves it out, which saves most of the time)
        out: folder for analysis.json, gain.png and maps.png (default: nothing is written)
        json: print the result as one JSON object
    """

    network: AnyNetwork
    surgery: AnySurgery = field(default_factory=AnySurgery)
    images: SplitImages = field(default_factory=lambda: SplitImages(samples=32))
    budget: Budget = field(default_factory=Budget)
    computing: Computing = field(default_factory=Computing)
    steps: int = 20
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "analyze", DESCRIPTION)
    from robustmaps.networks import analyze_network

    with watching() as watch:
        done = analyze_network(
            **vars(given.network),
            surgery=given.surgery.whole,
            **vars(given.images),
            **vars(given.budget),
            **vars(given.computing),
            steps=given.steps,
            out=given.out,
            watcher=watch,
        )
    result = done.result
    Output(given.json).result(
        done.to_dict(),
        result.title,
        *result.tables(),
        *(f"Note: {note}" for note in done.notes),
        *(f"Written: {path}" for path in done.files),
    )

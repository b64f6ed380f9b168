"""``robustmaps demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, stop_on_signal
from robustmaps.cli._verbs._sweep import showing
from robustmaps.engine.errors import Interrupted

DESCRIPTION = """Train ResNet-8 and its twin with inputs upsampled by 2 on the embedded digits, by adversarial training
with the same seeds; attack both; print and plot what the enlargement gained."""


@dataclass(frozen=True)
class Arguments:
    """Options of the demonstration.

    Attributes:
        out: folder for runs, plots and summary
        seeds: runs per network
        epochs: epochs of each run
        jobs: runs at once; the figures do not depend on it (default: one per core)
        json: print the result as one JSON object
    """

    out: Path = Path("runs/demo")
    seeds: int = 5
    epochs: int = 10
    jobs: int | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "demo", DESCRIPTION)
    from robustmaps.studies import demo

    with stop_on_signal() as should_stop, showing() as show:
        try:
            result = demo(
                given.out,
                seeds=given.seeds,
                epochs=given.epochs,
                jobs=given.jobs,
                watcher=show,
                should_stop=should_stop,
            )
        except Interrupted:
            raise Interrupted("stopped; the same command continues from here") from None
    files = "\n".join(f"  {result.folder / name}" for name in ("summary.md", "curves.png", "attacked.png"))
    Output(given.json).result(result.to_dict(), result.table(), f"\n{result.sentence()}\n\nWritten:\n{files}")

"""``robustmaps demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustmaps.cli._sweep import showing
from robustmaps.cli._terminal._shared import Output, parse, rich_table, stop_on_signal
from robustmaps.engine.errors import Interrupted

DESCRIPTION = """Train ResNet-8 and its twin with inputs upsampled by 2 on the embedded digits, by adversarial training
with the same seeds; attack both; print and plot what the enlargement bought."""


@dataclass(frozen=True)
class Arguments:
    """Options of the demonstration.

    Attributes:
        out: where runs, plots and summary go.
        seeds: runs per network.
        epochs: of each run.
        jobs: runs at once; as many as there are cores if left out. The figures do not depend on it.
        json: print the result as one JSON object.
    """

    out: Path = Path("runs/demo")
    seeds: int = 3
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
            raise Interrupted("stopped; the same command goes on from here") from None
    table = result.table()
    files = "\n".join(f"  {result.folder / name}" for name in ("summary.md", "curves.png", "attacked.png"))
    Output(given.json).result(
        result.to_dict(), rich_table(table.columns, table.rows), f"\n{result.sentence()}\n\nWritten:\n{files}"
    )

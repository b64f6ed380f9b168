"""``robustmaps evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._shared import Output, parse, rich_table
from robustmaps.cli._watch import watching
from robustmaps.experiments import AttackConfig

DESCRIPTION = """Attack a trained network on images it has not seen, and write a verdict per image."""


@dataclass(frozen=True)
class Arguments:
    """Options of evaluation.

    Attributes:
        run: a run folder, or a weights file (best.safetensors) of one.
        attack: what to attack with.
        data: other images than those it was trained on.
        split: which images.
        samples: how many, drawn evenly from the classes; all if left out.
        batch_size: images attacked at once.
        seed: of the attack's random draws.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: of the attack. Verdicts are always float32.
        compile: run the attack through torch.compile.
        out: the file to write; named after the settings, in the run folder, if left out.
        json: print the result as one JSON object, verdicts included.
    """

    run: tyro.conf.Positional[Path]
    attack: AttackConfig = field(default_factory=AttackConfig)
    data: str | None = None
    split: Literal["test", "validation"] = "test"
    samples: int | None = None
    batch_size: int = 256
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "evaluate", DESCRIPTION)
    from robustmaps.engine.numbers import as_fraction
    from robustmaps.experiments import evaluate_checkpoint

    with watching() as watch:
        done = evaluate_checkpoint(
            given.run,
            given.attack,
            data=given.data,
            split=given.split,
            samples=given.samples,
            batch_size=given.batch_size,
            seed=given.seed,
            device=given.device,
            precision=given.precision,
            compile=given.compile,
            out=given.out,
            watcher=watch,
            decoding=watch.decoding,
        )
    evaluation = done.evaluation
    rows = [("clean", str(evaluation.clean_accuracy), "")]
    rows += [("robust", str(evaluation.robust_accuracy), f"{evaluation.norm}, eps {as_fraction(evaluation.eps)}")]
    Output(given.json).result(
        {**evaluation.to_dict(), "file": str(done.path)},
        rich_table(("accuracy", "share [95 %]", "budget"), rows),
        f"{len(evaluation.verdicts)} {given.split} images in {evaluation.seconds:.1f} s. Verdicts: {done.path}",
    )

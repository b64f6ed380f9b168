"""``robustmaps evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from robustmaps.cli._shared import Output, open_given, parse, rich_table
from robustmaps.cli._watch import attacking
from robustmaps.engine.errors import Interrupted
from robustmaps.experiments import AttackConfig

if TYPE_CHECKING:
    from robustmaps.experiments import EvaluatedCurve, EvaluatedRun

DESCRIPTION = """Attack a trained network on images it has not seen, and write a verdict per image: a run of ours, or
your own network with --model-from package.module:function --checkpoint weights.safetensors --data ... The same command
goes on where a stopped or killed one was, to the same result."""


@dataclass(frozen=True)
class Arguments:
    """Options of evaluation.

    Attributes:
        run: a run folder, or a weights file (best.safetensors) of one.
        model_from: a function without arguments that returns your network, as package.module:function.
        checkpoint: safetensors of that network's weights, where the function does not load them itself.
        attack: what to attack with.
        data: other images than those it was trained on; needed with --model-from.
        split: which images.
        samples: how many, drawn evenly from the classes; all if left out.
        batch_size: images at once; as many as suit the device and its memory if left out, halved where they don't fit.
        seed: of the attack's random draws.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: of the attack. Verdicts are always float32.
        compile: run the attack through torch.compile.
        save_adversarials: also write the images that broke their samples, as safetensors.
        out: the file to write; named after the settings, in the run folder, if left out.
        json: print the result as one JSON object, verdicts included.
    """

    run: tyro.conf.Positional[Path | None] = None
    model_from: str | None = None
    checkpoint: Path | None = None
    attack: AttackConfig = field(default_factory=AttackConfig)
    data: str | None = None
    split: Literal["test", "validation"] = "test"
    samples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    save_adversarials: bool = False
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "evaluate", DESCRIPTION)
    from robustmaps.experiments import Options, evaluate_checkpoint, evaluate_curve

    checkpoint = open_given(given.run, given.model_from, given.checkpoint)
    with attacking() as watch:
        options = Options(
            data=given.data,
            split=given.split,
            samples=given.samples,
            batch_size=given.batch_size,
            seed=given.seed,
            device=given.device,
            precision=given.precision,
            compile=given.compile,
            save_adversarials=given.save_adversarials,
            watcher=watch,
            decoding=watch.decoding,
        )
        try:
            done: EvaluatedRun | EvaluatedCurve = (
                evaluate_curve(checkpoint, given.attack, options, out=given.out)
                if len(given.attack.eps) > 1
                else evaluate_checkpoint(checkpoint, given.attack, options, out=given.out)
            )
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command goes on from the last finished batch") from None
    _print(done, given)


def _print(done: "EvaluatedRun | EvaluatedCurve", given: Arguments) -> None:
    from robustmaps.experiments import EvaluatedRun

    output = Output(given.json)
    if isinstance(done, EvaluatedRun):
        output.result(_values(done), _stages(done), *_summary(done, given.split))
        return
    first = done.runs[0].evaluation
    rows = [("0", str(first.clean_accuracy), "")]
    rows += [(_fraction(run), str(run.evaluation.robust_accuracy), run.path.name) for run in done.runs]
    output.result(
        {"curve": [_values(run) for run in done.runs], "file": str(done.path), "plot": str(done.plot)},
        rich_table((f"eps, {first.norm}", "accuracy [95 %]", "verdicts"), rows),
        f"{len(first.verdicts)} {given.split} images. Curve: {done.path}\nPlot: {done.plot}",
        *_warnings(done.runs[-1]),
    )


def _values(done: "EvaluatedRun") -> dict[str, Any]:
    adversarials = {"adversarials": str(done.adversarials)} if done.adversarials is not None else {}
    return {**done.evaluation.to_dict(), "file": str(done.path), **adversarials}


def _stages(done: "EvaluatedRun") -> object:
    """A row per attack, with what was left after it."""
    evaluation = done.evaluation
    standing = evaluation.clean_accuracy.successes
    rows = [("clean", "", str(standing), str(evaluation.clean_accuracy), "")]
    for stage in evaluation.stages:
        standing -= stage["broken"]
        share = f"{100 * standing / len(evaluation.verdicts):.1f} %"
        rows.append((stage["name"], str(stage["attacked"]), str(standing), share, f"{stage['seconds']:.1f} s"))
    robust = evaluation.robust_accuracy
    rows.append(("robust", "", str(robust.successes), str(robust), f"{evaluation.seconds:.1f} s"))
    return rich_table(("attack", "attacked", "survivors", "accuracy [95 %]", "time"), rows)


def _summary(done: "EvaluatedRun", split: str) -> list[str]:
    evaluation = done.evaluation
    lines = [
        f"{len(evaluation.verdicts)} {split} images, {evaluation.norm}, eps {_fraction(done)}, seed {evaluation.seed}.",
        f"{'Evaluated before' if done.before else 'Verdicts'}: {done.path}",
    ]
    if done.adversarials is not None:
        lines.append(f"Adversarial images: {done.adversarials}")
    return [*lines, *_warnings(done)]


def _warnings(done: "EvaluatedRun") -> list[str]:
    return [f"Note: {warning}" for warning in done.evaluation.warnings]


def _fraction(done: "EvaluatedRun") -> str:
    from robustmaps.engine.numbers import as_fraction

    return as_fraction(done.evaluation.eps)

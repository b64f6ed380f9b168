"""``robustmaps evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robustmaps.cli._terminal._options import Computing, Images, TrainedNetwork
from robustmaps.cli._terminal._parsing import ATTACKS, parse
from robustmaps.cli._terminal._shared import Output, open_given
from robustmaps.cli._terminal._watch import attacking
from robustmaps.config import AttackConfig, Split, flat_values
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.tables import table

if TYPE_CHECKING:
    from robustmaps.evaluation import Evaluation
    from robustmaps.runs import CorruptedRun, EvaluatedColumns, EvaluatedCurve, EvaluatedRun

    Done = EvaluatedRun | EvaluatedCurve | EvaluatedColumns | CorruptedRun

_NORMS = ("linf", "l2", "l1")
DESCRIPTION = """Attack a trained network on images it has not seen, and write a verdict per image: a run, or your own
network with --model-from package.module:function --checkpoint weights.safetensors --data ... The same command
continues a stopped or killed one, to the same result."""


@dataclass(frozen=True)
class Advanced:
    """Rarely needed.

    Attributes:
        batch_size: images at once (default: what suits the device and its memory, halved where they don't fit)
        precision: precision of the attack; verdicts are always float32
        compile: run the attack through torch.compile
    """

    batch_size: int | None = None
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    compile: bool = False


@dataclass(frozen=True)
class EvaluatedImages(Images):
    """The images.

    Attributes:
        split: split of the data set to draw from; train measures how well the training images themselves are protected
    """

    split: Split = "test"


@dataclass(frozen=True)
class Arguments:
    """Options of evaluation.

    Attributes:
        each: attack all images with each attack by itself, with a column each, and give the worst case of all
        consistent: attack misclassified images too, with the predicted class as label, for the consistent accuracy: the
            share of images whose prediction stays, right or wrong; takes as long per image as the attack
        corruptions: folder of corrupted test images in the form of CIFAR-10-C (labels.npy and a .npy for each
            corruption, five severities); measures the accuracy on them instead of attacking
        seed: seed of the attack's random draws
        save_adversarials: write the images that broke their samples too, as safetensors
        eight_bit: round adversarial images to 8 bits per channel, as in PNG files, within the budget; only such an
            image then breaks its sample
        out: file to write (default: named after the settings, in the run folder)
        json: print the result as one JSON object, verdicts included
    """

    network: TrainedNetwork = field(default_factory=TrainedNetwork)
    attack: AttackConfig = field(default_factory=AttackConfig)
    images: EvaluatedImages = field(default_factory=EvaluatedImages)
    computing: Computing = field(default_factory=Computing)
    each: bool = False
    consistent: bool = False
    corruptions: Path | None = None
    seed: int = 0
    save_adversarials: bool = False
    eight_bit: bool = False
    out: Path | None = None
    json: bool = False
    advanced: Advanced = field(default_factory=Advanced)


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "evaluate", DESCRIPTION, rows=ATTACKS)
    given.attack.check()
    if given.each:
        given.attack.columns()
    from robustmaps.runs import Options, evaluate_checkpoint, evaluate_corrupted, evaluate_curve, evaluate_each

    if given.corruptions is not None:
        _refuse_beside_corruptions(given)
    checkpoint = open_given(given.network)
    with attacking() as watch:
        options = Options(
            **vars(given.images),
            **vars(given.computing),
            **vars(given.advanced),
            seed=given.seed,
            save_adversarials=given.save_adversarials,
            eight_bit=given.eight_bit,
            consistent=given.consistent,
            watcher=watch,
        )
        try:
            done: Done
            if given.corruptions is not None:
                done = evaluate_corrupted(checkpoint, given.corruptions, options, out=given.out)
            elif given.each:
                done = evaluate_each(checkpoint, given.attack, options, out=given.out)
            elif len(given.attack.eps) > 1:
                done = evaluate_curve(checkpoint, given.attack, options, out=given.out)
            else:
                done = evaluate_checkpoint(checkpoint, given.attack, options, out=given.out)
        except KeyboardInterrupt:
            what = "batch" if given.corruptions is None else "corruption"
            raise Interrupted(f"stopped; the same command continues after the last finished {what}") from None
    _print(done, given)


def _refuse_beside_corruptions(given: Arguments) -> None:
    """Options that would be without effect are a misunderstanding."""
    default = flat_values(Arguments())
    idle = {*vars(AttackConfig()), "data", "classes", "split", "seed", "precision", "compile"}
    idle |= {"save_adversarials", "eight_bit", "each", "consistent"}
    changed = [f"--{k.replace('_', '-')}" for k, v in flat_values(given).items() if k in idle and v != default[k]]
    if changed:
        raise InputError(
            f"--corruptions {given.corruptions}: nothing is attacked, and the images are those of the folder; "
            f"leave out {', '.join(changed)}"
        )


def _print_corrupted(done: "CorruptedRun", as_json: bool) -> None:
    figures = done.figures

    def short(rate: dict[str, Any]) -> str:
        return f"{100 * rate['value']:.1f}"

    def full(rate: dict[str, Any]) -> str:
        low, high = rate["interval"]
        return f"{short(rate)} [{100 * low:.1f}, {100 * high:.1f}]"

    rows = [
        (name, *(short(rate) for rate in of["severities"]), full(of["mean"]))
        for name, of in figures["corruptions"].items()
    ]
    rows.append(("all", *map(short, figures["severities"]), full(figures["mean_corruption_accuracy"])))
    Output(as_json).result(
        {**figures, "file": str(done.path)},
        table(("% at severity", *map(str, range(1, 6)), "mean [95 %]"), rows, words=1),
        f"{figures['images']} images, each with 5 severities of {len(rows) - 1} corruptions, not attacked.",
        f"{'Evaluated before' if done.before else 'With the interval of every accuracy'}: {done.path}",
        *(f"Note: {warning}" for warning in figures.get("warnings", ())),
    )


def _print(done: "Done", given: Arguments) -> None:
    from robustmaps.runs import CorruptedRun, EvaluatedColumns, EvaluatedRun

    if isinstance(done, CorruptedRun):
        _print_corrupted(done, given.json)
        return
    output = Output(given.json)
    if isinstance(done, EvaluatedRun):
        output.result(_values(done), _stages(done), *_summary(done))
        return
    if isinstance(done, EvaluatedColumns):
        output.result(_values_of_each(done), *_each(done), *_warnings(done.worst[-1]))
        return
    first = done.runs[0].evaluation
    consistent = given.consistent
    rows = [("0", str(first.clean_accuracy), *([""] * consistent), "")]
    rows += [
        (
            _fraction(run),
            str(run.evaluation.robust_accuracy),
            *([str(run.evaluation.consistent_accuracy)] * consistent),
            run.path.name,
        )
        for run in done.runs
    ]
    columns = (f"eps, {first.norm}", "accuracy [95 %]", *(["consistent [95 %]"] * consistent), "verdicts")
    output.result(
        {"curve": [_values(run) for run in done.runs], "file": str(done.path), "plot": str(done.plot)},
        table(columns, rows, words=1),
        f"{_images(first)}. Curve: {done.path}\nPlot: {done.plot}",
        *_warnings(done.runs[-1]),
    )


def _values_of_each(done: "EvaluatedColumns") -> dict[str, Any]:
    return {
        "columns": {
            name: [_values(run) for run in column] for name, column in zip(done.names, done.columns, strict=True)
        },
        "worst_case": [_values(run) for run in done.worst],
    }


def _each(done: "EvaluatedColumns") -> list[object]:
    """A row per attack and radius, with its figures over all images, then the worst case."""
    first = done.worst[0].evaluation
    consistent = first.consistent_accuracy is not None
    rows: list[tuple[str, ...]] = []
    for at, worst in enumerate(done.worst):
        rows.append(("clean", _fraction(worst), str(first.clean_accuracy), *([""] * consistent), "", "", "", ""))
        runs = [
            *((name, column[at]) for name, column in zip(done.names, done.columns, strict=True)),
            ("worst case", worst),
        ]
        for name, run in runs:
            found = run.evaluation
            means = (str(found.mean_distances[norm]) if norm in found.mean_distances else "" for norm in _NORMS)
            kept = [str(found.consistent_accuracy)] * consistent
            rows.append((name, _fraction(run), str(found.robust_accuracy), *kept, *means, f"{found.seconds:.1f} s"))
    kept = ["consistent [95 %]"] * consistent
    columns = ("attack", f"eps, {first.norm}", "accuracy [95 %]", *kept, *(f"mean {norm}" for norm in _NORMS), "time")
    files = [run.path for column in done.columns for run in column]
    return [
        table(columns, rows, words=1),
        f"{_images(first)}, seed {first.seed}; each attack by itself on all of them. Means: of the images that broke their "
        "samples, with 95 % intervals.",
        f"Verdicts: {', '.join(path.name for path in files)}\nWorst case: {', '.join(str(run.path) for run in done.worst)}",
    ]


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
    kept, others = evaluation.consistent_accuracy, evaluation.misclassified
    if kept is not None and others is not None:
        wrong = str(len(others.verdicts))
        rows.append(("consistent", wrong, str(kept.successes), str(kept), f"{others.seconds:.1f} s"))
    return table(("attack", "attacked", "survivors", "accuracy [95 %]", "time"), rows, words=1)


def _images(evaluation: "Evaluation") -> str:
    if evaluation.split == "train":
        return f"{len(evaluation.verdicts)} training images, which say nothing about new ones"
    return f"{len(evaluation.verdicts)} {evaluation.split} images"


def _summary(done: "EvaluatedRun") -> list[str]:
    evaluation = done.evaluation
    lines = [
        f"{_images(evaluation)}, {evaluation.norm}, eps {_fraction(done)}, seed {evaluation.seed}.",
        f"{'Evaluated before' if done.before else 'Verdicts'}: {done.path}",
    ]
    if means := evaluation.mean_distances:
        shown = ", ".join(f"{norm} {mean}" for norm, mean in means.items())
        lines.append(f"Mean distance of the images that broke their samples [95 %]: {shown}.")
    if done.adversarials is not None:
        lines.append(f"Adversarial images: {done.adversarials}")
    if (saved := evaluation.saved) is not None:
        lines.append(
            f"Saved as 8-bit PNG, {saved['misleading_at_8_bits']} of the {saved['images']} images still mislead the "
            f"network, {saved['within_budget_at_8_bits']} of them within the budget."
        )
    return [*lines, *_warnings(done)]


def _warnings(done: "EvaluatedRun") -> list[str]:
    return [f"Note: {warning}" for warning in done.evaluation.warnings]


def _fraction(done: "EvaluatedRun") -> str:
    from robustmaps.engine.numbers import as_fraction

    return as_fraction(done.evaluation.eps)

"""``robustmaps evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robustmaps.cli._terminal._evaluated import show
from robustmaps.cli._terminal._executor import Execution, started
from robustmaps.cli._terminal._options import Computing, Images, TrainedNetwork
from robustmaps.cli._terminal._parsing import ATTACKS, parse
from robustmaps.cli._terminal._shared import open_given, open_like
from robustmaps.cli._terminal._watch import attacking
from robustmaps.config import AttackConfig, Split, flat_values
from robustmaps.engine.errors import InputError, Interrupted

if TYPE_CHECKING:
    from robustmaps.cli._terminal._evaluated import Done

DESCRIPTION = """Attack a trained network on images it has not seen, and write a verdict per image: a run, or any
network with weights from a file, such as resnet18 --strides 1122 --weights FILE --data cifar10. The same command
continues a stopped or killed one, to the same result."""


@dataclass(frozen=True)
class Advanced:
    """Rarely needed.

    Attributes:
        batch_size: images at once (default: what suits the device and its memory, halved where they don't fit)
        precision: precision of the attack: auto (fp32 or bf16, whichever is faster in a timed pass), fp32, tf32 or
            bf16; verdicts are always float32
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
        transfer: further networks, as MODEL; attacks are made on every network and tried on all of them
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
    execution: Execution = field(default_factory=Execution)
    each: bool = False
    consistent: bool = False
    transfer: tuple[str, ...] = ()
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
    from robustmaps.runs import (
        Options,
        evaluate_checkpoint,
        evaluate_corrupted,
        evaluate_curve,
        evaluate_each,
        evaluate_transfer,
    )

    if given.corruptions is not None:
        _refuse_beside_corruptions(given)
    if given.transfer:
        _refuse_beside_transfer(given)
    elif "--transfer" in arguments:
        raise InputError("--transfer: expected one or more further runs")
    workers = given.execution.workers(given.computing.device)
    checkpoint = open_given(given.network, given.images)
    with attacking() as watch, started(workers, watch.note) as pool:
        options = Options(
            **vars(given.images),
            **vars(given.computing),
            **vars(given.advanced),
            seed=given.seed,
            save_adversarials=given.save_adversarials,
            eight_bit=given.eight_bit,
            consistent=given.consistent,
            workers=pool,
            watcher=watch,
        )
        try:
            done: Done
            if given.corruptions is not None:
                done = evaluate_corrupted(checkpoint, given.corruptions, options, out=given.out)
            elif given.transfer:
                networks = [checkpoint, *(open_like(given.network, model, given.images) for model in given.transfer)]
                done = evaluate_transfer(networks, given.attack, options, out=given.out)
            elif given.each:
                done = evaluate_each(checkpoint, given.attack, options, out=given.out)
            elif len(given.attack.eps) > 1:
                done = evaluate_curve(checkpoint, given.attack, options, out=given.out)
            else:
                done = evaluate_checkpoint(checkpoint, given.attack, options, out=given.out)
        except KeyboardInterrupt:
            what = "batch" if given.corruptions is None else "corruption"
            raise Interrupted(f"stopped; the same command continues after the last finished {what}") from None
    show(done, given.json)


def _refuse_beside_corruptions(given: Arguments) -> None:
    """Options that would be without effect are a misunderstanding."""
    default = flat_values(Arguments())
    idle = {*vars(AttackConfig()), "data", "image_size", "channels", "classes", "split", "seed", "precision", "compile"}
    idle |= {"save_adversarials", "eight_bit", "each", "consistent", "transfer", *vars(Execution())}
    changed = [f"--{k.replace('_', '-')}" for k, v in flat_values(given).items() if k in idle and v != default[k]]
    if changed:
        raise InputError(
            f"--corruptions {given.corruptions}: nothing is attacked, and the images are those of the folder; "
            f"leave out {', '.join(changed)}"
        )


def _refuse_beside_transfer(given: Arguments) -> None:
    """The images made on each network are always kept; columns and consistency are no part of a matrix."""
    idle = [name for name in ("each", "consistent", "save_adversarials") if getattr(given, name)]
    if idle:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise InputError(f"--transfer: a matrix of networks has no use for {options}; leave it out")

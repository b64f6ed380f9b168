"""``robustmaps diagnose``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustmaps.cli._terminal._options import AnyBudget, Computing, SplitImages, TrainedNetwork
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output, open_given
from robustmaps.cli._terminal._watch import watching
from robustmaps.engine.tables import table

DESCRIPTION = """Check whether a network's robustness is real. Look for signs that attacks fail for other reasons: no
gradients, saturated logits, randomness, operations that can't be differentiated, attacks that others outdo. Takes a
run, or a network with weights from a file, such as mine:network --weights FILE --data ..."""


@dataclass(frozen=True)
class Arguments:
    """Options of the diagnosis.

    Attributes:
        surrogate: network, as MODEL, whose adversarial examples are tried (default: a small network is trained for it)
        seed: seed of all random draws
        batch_size: images at once
        out: file to write (default: named after the settings, in the run folder)
        json: print the result as one JSON object
    """

    network: TrainedNetwork = field(default_factory=TrainedNetwork)
    images: SplitImages = field(default_factory=lambda: SplitImages(samples=200))
    budget: AnyBudget = field(default_factory=AnyBudget)
    computing: Computing = field(default_factory=Computing)
    surrogate: str | None = None
    seed: int = 0
    batch_size: int = 128
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "diagnose", DESCRIPTION)
    from robustmaps.engine.numbers import budget_text
    from robustmaps.engine.reading.pages import explain
    from robustmaps.runs import diagnose_checkpoint

    checkpoint = open_given(given.network, given.images)
    with watching() as watch:
        done = diagnose_checkpoint(
            checkpoint,
            **vars(given.images),
            **vars(given.budget),
            **vars(given.computing),
            surrogate=given.surrogate,
            seed=given.seed,
            batch_size=given.batch_size,
            out=given.out,
            watcher=watch,
        )
    diagnosis = done.diagnosis
    rows = [(finding.name, finding.verdict, finding.text) for finding in diagnosis.findings]
    budget = f"{budget_text(diagnosis.norm, diagnosis.eps)}"
    texts = [f"{finding.name} is suspect: {explain(finding.name)}" for finding in diagnosis.suspects]
    if not texts:
        texts = ["No check found a sign that the robustness is not real."]
    Output(given.json).result(
        {**diagnosis.to_dict(), "file": str(done.path)},
        table(("check", "verdict", "what was found"), rows, words=3),
        *texts,
        f"{diagnosis.images} {given.images.split} images, {budget}, in {diagnosis.seconds:.0f} s. Written: {done.path}",
    )

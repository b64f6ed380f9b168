"""``robustmaps diagnose``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._terminal._shared import Output, open_given, parse, rich_table
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """Is this robustness real? Look for signs that attacks fail on a network for other reasons: no gradients,
saturated logits, randomness, operations that can't be differentiated, attacks that others outdo. Takes a run of ours,
or your own network with --model-from package.module:function --checkpoint weights.safetensors --data ..."""


@dataclass(frozen=True)
class Arguments:
    """Options of the diagnosis.

    Attributes:
        run: a run folder, or a weights file (best.safetensors) of one.
        model_from: a function without arguments that returns your network, as package.module:function.
        checkpoint: safetensors of that network's weights, where the function does not load them itself.
        data: other images than those it was trained on; needed with --model-from.
        split: which images.
        samples: how many, drawn evenly from the classes.
        norm: the norm of the budget that the network claims to withstand; the run's own if left out.
        eps: its radius, for images in [0, 1]; the run's own if left out.
        surrogate: another run whose adversarial examples are tried; a small network is trained for it if left out.
        seed: of every random draw.
        batch_size: images at once.
        device: auto, cpu, cuda, cuda:1 or mps.
        out: the file to write; named after the settings, in the run folder, if left out.
        json: print the result as one JSON object.
    """

    run: tyro.conf.Positional[Path | None] = None
    model_from: str | None = None
    checkpoint: Path | None = None
    data: str | None = None
    split: Literal["test", "validation"] = "test"
    samples: int = 200
    norm: Literal["linf", "l2", "l1"] | None = None
    eps: float | None = None
    surrogate: Path | None = None
    seed: int = 0
    batch_size: int = 128
    device: str = "auto"
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "diagnose", DESCRIPTION)
    from robustmaps.engine.numbers import as_fraction
    from robustmaps.runs import diagnose_checkpoint

    checkpoint = open_given(given.run, given.model_from, given.checkpoint)
    with watching() as watch:
        done = diagnose_checkpoint(
            checkpoint,
            data=given.data,
            split=given.split,
            samples=given.samples,
            norm=given.norm,
            eps=given.eps,
            surrogate=given.surrogate,
            seed=given.seed,
            batch_size=given.batch_size,
            device=given.device,
            out=given.out,
            watcher=watch,
            decoding=watch.decoding,
        )
    diagnosis = done.diagnosis
    rows = [(finding.name, finding.verdict, finding.text) for finding in diagnosis.findings]
    budget = f"{diagnosis.norm}, eps {as_fraction(diagnosis.eps)}"
    texts = [f"{finding.name} is suspect, see {finding.page}" for finding in diagnosis.suspects]
    if not texts:
        texts = ["No check found a sign that the robustness is not real."]
    Output(given.json).result(
        {**diagnosis.to_dict(), "file": str(done.path)},
        rich_table(("check", "verdict", "what was found"), rows, texts=3),
        *texts,
        f"{diagnosis.images} {given.split} images, {budget}, in {diagnosis.seconds:.0f} s. Written: {done.path}",
    )

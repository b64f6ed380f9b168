"""``robustmaps analyze``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._terminal._shared import Output, parse, rich_table
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import Surgery

DESCRIPTION = """Say per stage of a network how large its maps are, what they see, what they cost, and how far a
perturbation can drive them; with --upsample or --where, the same of the enlarged network beside it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the analysis.

    Attributes:
        model: a network's name, a run folder, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION.
        surgery: what to change for the second network.
        data: the images; those that the network was trained on if left out, else the digits.
        image_size: resize images to this many pixels a side.
        split: which images.
        samples: how many, drawn evenly from the classes.
        eps: the budget's radius, for images in [0, 1]; the network's own if left out, else 8/255.
        norm: the budget's norm; the network's own if left out, else linf.
        steps: of projected gradient descent; 0 leaves it out, which saves most of the time.
        directions: random directions along which pooled features are looked at.
        strides: of an untrained network of ours.
        seed: of an untrained network's weights, and of the directions.
        device: auto, cpu, cuda, cuda:1 or mps.
        out: a folder for analysis.json, gain.png and maps.png.
        json: print the result as one JSON object.
    """

    model: tyro.conf.Positional[str]
    surgery: Surgery = field(default_factory=Surgery)
    data: str | None = None
    image_size: int | None = None
    split: Literal["test", "validation"] = "test"
    samples: int = 32
    eps: float | None = None
    norm: Literal["linf", "l2"] | None = None
    steps: int = 20
    directions: int = 4
    strides: str | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "analyze", DESCRIPTION)
    from robustmaps.networks import analyze_network

    with watching() as watch:
        done = analyze_network(
            given.model,
            given.surgery,
            data=given.data,
            image_size=given.image_size,
            split=given.split,
            samples=given.samples,
            eps=given.eps,
            norm=given.norm,
            steps=given.steps,
            directions=given.directions,
            strides=given.strides,
            seed=given.seed,
            device=given.device,
            out=given.out,
            watcher=watch,
            decoding=watch.decoding,
        )
    result = done.result
    Output(given.json).result(
        done.to_dict(),
        result.title,
        *(rich_table(rows[0], rows[1:]) for rows in result.tables()),
        *(f"Note: {note}" for note in done.notes),
        *(f"Written: {path}" for path in done.files),
    )

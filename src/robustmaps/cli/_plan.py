"""``robustmaps plan``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robustmaps.cli._terminal._shared import Output, parse
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """List all enlargements of a network within a budget, with cost, map size and perturbation gain, and mark
those that no other one beats, so that you can choose before you train."""


@dataclass(frozen=True)
class Arguments:
    """Options of planning.

    Attributes:
        model: a network's name, a run folder, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION.
        budget: how many times the given network's cost may be spent, such as 2.0x.
        measure: what the budget limits.
        upsamples: factors of upsampling to try, with commas.
        dilate: spread the taps of later windows, so that a trained network keeps its function.
        gain: what to measure: of the pooled features, which needs no training, or of the margin, which does; auto
            takes the one that fits.
        data: the images; those that the network was trained on if left out, else the digits.
        image_size: resize images to this many pixels a side.
        samples: how many images.
        eps: the perturbation's radius, for images in [0, 1]; the network's own if left out, else 8/255.
        norm: its norm; the network's own if left out, else linf.
        strides: of an untrained network of ours.
        seed: of an untrained network's weights.
        device: auto, cpu, cuda, cuda:1 or mps.
        out: a PNG of cost against gain.
        json: print the result as one JSON object.
    """

    model: tyro.conf.Positional[str]
    budget: str = "2.0x"
    measure: Literal["flops", "memory", "latency"] = "flops"
    upsamples: tuple[float, ...] = (1.0, 2.0)
    dilate: bool = False
    gain: Literal["auto", "features", "margin", "none"] = "auto"
    data: str | None = None
    image_size: int | None = None
    samples: int = 32
    eps: float | None = None
    norm: Literal["linf", "l2"] | None = None
    strides: str | None = None
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "plan", DESCRIPTION)
    from robustmaps.networks import parse_budget, plan_network

    options = {**vars(given), "budget": parse_budget(given.budget)}
    for name in ("model", "json"):
        del options[name]
    with watching() as watch:
        done = plan_network(given.model, **options, watcher=watch, decoding=watch.decoding)
    Output(given.json).result(
        done.to_dict(),
        done.plan,
        f"gain: {done.gain}",
        *(f"Written: {path}" for path in done.files),
    )

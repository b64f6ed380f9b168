"""``robustmaps plan``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robustmaps.cli._terminal._options import AnyNetwork, Budget, Computing, Images, Spending
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching
from robustmaps.models import Activation, Smooth

DESCRIPTION = """List all enlargements of a network within a budget, with cost, map size and perturbation gain, and mark
those that no other one beats, so that you can choose before you train."""


@dataclass(frozen=True)
class Arguments:
    """Options of planning.

    Attributes:
        dilate: spread the taps of later windows, so that a trained network keeps its function
        smooth: let changed steps average their maps down to the size they had: over windows (average) or by a triangle
            filter (blur) (default: let them grow)
        activation: replace every ReLU by SiLU in all that is listed but the given network (default: keep them)
        enlarge_at: share of the epochs after which training enlarges, e.g. 0.8; several let upsampling grow step by
            step, e.g. 0.5,0.8; the budget then limits the mean cost of an epoch (default: from the first epoch)
        gain: gain to measure: of the pooled features, which needs no training, or of the margin, which does (auto takes
            the one that fits)
        out: picture of cost against gain to write, as PNG, PDF or SVG by its ending (default: no picture)
        json: print the result as one JSON object
    """

    network: AnyNetwork
    spending: Spending = field(default_factory=Spending)
    images: Images = field(default_factory=lambda: Images(samples=32))
    perturbation: Budget = field(default_factory=Budget)
    computing: Computing = field(default_factory=Computing)
    dilate: bool = False
    smooth: Smooth | None = None
    activation: Activation | None = None
    enlarge_at: str | None = None
    gain: Literal["auto", "features", "margin", "none"] = "auto"
    out: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "plan", DESCRIPTION)
    from robustmaps.networks import plan_network

    with watching() as watch:
        done = plan_network(
            **vars(given.network),
            budget=given.spending.times,
            measure=given.spending.measure,
            upsamples=given.spending.upsamples,
            **vars(given.images),
            **vars(given.perturbation),
            **vars(given.computing),
            dilate=given.dilate,
            smooth=given.smooth,
            activation=given.activation,
            enlarge_at=given.enlarge_at,
            gain=given.gain,
            out=given.out,
            watcher=watch,
        )
    Output(given.json).result(
        done.to_dict(),
        done.plan,
        f"gain: {done.gain}",
        *(f"Written: {path}" for path in done.files),
    )

"""``robustmaps enlarge``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustmaps.cli._terminal._options import AnyNetwork, AnySurgery, Images
from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.cli._terminal._watch import watching

DESCRIPTION = """Enlarge the maps of any network, by upsampled images, smaller strides or both, and print what it costs.
--image-size alone lets a trained network take images with more pixels than it was trained on. With --save, write
weights and recipe to a folder that can be given wherever a MODEL is expected. Without --data, a network that was
trained on known images is compared on those, and any other one not at all."""


@dataclass(frozen=True)
class Arguments:
    """Options of enlarging.

    Attributes:
        recalibrate: measure the statistics of the batch-norms again, on training images; weights stay as they are
        save: folder for weights.safetensors, recipe.json and, of your own network, program.safetensors, from which it
            opens without your code (default: nothing is written)
        json: print the result as one JSON object
    """

    network: AnyNetwork
    surgery: AnySurgery = field(default_factory=AnySurgery)
    images: Images = field(default_factory=lambda: Images(samples=512))
    recalibrate: bool = False
    save: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "enlarge", DESCRIPTION)
    from robustmaps.networks import claim_enlarged, enlarge_network, save_enlarged

    before = given.save is not None and claim_enlarged(given.save)
    with watching() as watch:
        done = enlarge_network(
            **vars(given.network),
            surgery=given.surgery.whole,
            **vars(given.images),
            recalibrate=given.recalibrate,
            watcher=watch,
        )
    files = () if given.save is None else save_enlarged(done, given.save)
    Output(given.json).result(
        {
            **done.enlargement.to_dict(),
            "model": given.network.model,
            "recalibrated_on": done.recalibrated_on,
            "files": [str(path) for path in files],
        },
        done,
        *(f"Written{' before' if before else ''}: {path}" for path in files),
    )

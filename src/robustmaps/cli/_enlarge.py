"""``robustmaps enlarge``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from robustmaps.cli._terminal._shared import Output, parse
from robustmaps.cli._terminal._watch import watching
from robustmaps.config import Surgery

DESCRIPTION = """Enlarge the maps of any network, by upsampled images, smaller strides or both; print what it costs, and
with --save write weights and recipe, so that the folder can be given wherever a MODEL is expected."""


@dataclass(frozen=True)
class Arguments:
    """Options of enlarging.

    Attributes:
        model: a network's name, a run folder, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION.
        surgery: what to change.
        data: images to compare the network on before and after; those it was trained on if left out, none where
            unknown.
        image_size: pixels a side of the images; the network's own if left out.
        samples: how many images to compare on.
        strides: of an untrained network of ours.
        seed: of an untrained network's weights.
        save: a folder for weights.safetensors and recipe.json.
        json: print the result as one JSON object.
    """

    model: tyro.conf.Positional[str]
    surgery: Surgery = field(default_factory=Surgery)
    data: str | None = None
    image_size: int | None = None
    samples: int = 512
    strides: str | None = None
    seed: int = 0
    save: Path | None = None
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "enlarge", DESCRIPTION)
    from robustmaps.networks import enlarge_network, save_enlarged

    with watching() as watch:
        done = enlarge_network(
            given.model,
            given.surgery,
            data=given.data,
            image_size=given.image_size,
            samples=given.samples,
            strides=given.strides,
            seed=given.seed,
            decoding=watch.decoding,
        )
    files = () if given.save is None else save_enlarged(done, given.save)
    Output(given.json).result(
        {**done.enlargement.to_dict(), "model": given.model, "files": [str(path) for path in files]},
        done.enlargement,
        *(f"Written: {path}" for path in files),
    )

"""``robustmaps models``."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.tables import table

DESCRIPTION = "List the networks with their default strides, parameters and FLOPs."


@dataclass(frozen=True)
class Arguments:
    """Options of the list.

    Attributes:
        image_size: side length in pixels of the image for which FLOPs and map sizes are given
        json: print the list as one JSON object
    """

    image_size: int = 32
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "models", DESCRIPTION)
    from robustmaps.engine.numbers import human
    from robustmaps.models import catalog

    entries = catalog(image_px=given.image_size, num_classes=10)
    rows = [
        (
            entry.name,
            entry.family,
            str(entry.strides),
            human(entry.parameters),
            human(entry.flops, "FLOP"),
            "x".join(map(str, entry.map_size or ())),
        )
        for entry in entries
    ]
    size = given.image_size
    note = (
        "Also with other widths: resnet18_w0.25 has a quarter of the channels, resnet8_w1-1-0.5 half in the last group."
    )
    Output(given.json).result(
        {"image_size": size, "models": [entry.to_dict() for entry in entries]},
        table(("model", "family", "strides", "parameters", f"forward, {size} px", "last map"), rows, words=3),
        note,
    )

"""Whether a network takes the images that it is to be given, and which option mends it."""

import math

import torch
from torch import nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import check_values, evaluating

_SIDES_PX = (8, 28, 32, 64, 96, 128, 224, 299)
_OF_CHANNELS = {1: "turns colours grey", 3: "repeats grey over three channels"}


def check_takes(model: nn.Module, spec: str, data: Dataset) -> None:
    """Refuse images of which the network takes another number of channels, or another size.

    What it can't take for another reason is left to those who call it.

    Raises:
        InputError: images of another number of channels or size would do; the message has the option. Or the network
            has no values, see `check_values`.
    """
    check_values(model)
    mend = how_to_mend(model, data.in_channels, *data.image_size)
    if mend is not None:
        raise InputError(f"data={data.name}: {spec} {mend}")


def how_to_mend(model: nn.Module, channels: int, height: int, width: int) -> str | None:
    """What images a network takes instead of these, and how to give it those; None if it takes these, or no others."""
    if _takes(model, channels, height, width):
        return None
    other = 3 if channels == 1 else 1
    if _takes(model, other, height, width):
        named = f"--channels {other} {_OF_CHANNELS[other]}"
        return f"takes images of {other} channel{'s' * (other > 1)}, and these have {channels}; {named}"
    for given in (channels, other):
        for side in _SIDES_PX:
            if _takes(model, given, side, side):
                named = f"--image-size {side}" + (f" --channels {given}" if given != channels else "")
                took = f"{height} x {width} pixels" + (f" and {channels} channels" if given != channels else "")
                return f"does not take images of {took}; {named} gives it some that it takes"
    return None


def check_strides(
    name: str, strides: str | None, image_size: tuple[int, int], data: str | None = None, upsample: float = 1
) -> None:
    """Refuse strides of a network of ours that leave less than one pixel, which later steps would sample again.

    Args:
        name: the network.
        strides: as they were given; None for its own.
        image_size: height and width of the images.
        data: the name of their data set.
        upsample: factor by which they are upsampled.

    Raises:
        InputError: the product of the strides exceeds the side of the images.
    """
    if strides is None:
        return
    given, own = models.parse_strides(name, strides), models.default_strides(name)
    side = min(image_size) * upsample
    if given != own and math.prod(given) > max(side, math.prod(own)):
        named = "" if data is None else f" of {data}"
        raise InputError(
            f"strides={given}: divide a side by {math.prod(given)}, and the images{named} have {side:g} pixels; "
            f"expected smaller strides, such as {own}"
        )


@torch.no_grad()
def _takes(model: nn.Module, channels: int, height: int, width: int) -> bool:
    device = next((each.device for each in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    try:
        with evaluating(model):
            network_logits(model, torch.zeros(1, channels, height, width, device=device))
    except Exception:  # noqa: BLE001 - whatever a network of somebody else raises
        return False
    return True

"""What the verbs that enlarge share: how to write it on the command line. No PyTorch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SurgeryArguments:
    """What is changed on a network.

    Attributes:
        upsample: factor by which images are enlarged in front of the network.
        upsample_mode: how they are enlarged.
        factor: what the strides of the chosen steps are divided by; 2 if only --where is given.
        where: which downsampling steps: first, last, or their numbers with commas, such as 0,2.
        dilate: spread the taps of later windows, so that a trained network keeps its function.
    """

    upsample: float = 1.0
    upsample_mode: Literal["nearest", "bilinear", "bicubic"] = "nearest"
    factor: int | None = None
    where: str | None = None
    dilate: bool = False

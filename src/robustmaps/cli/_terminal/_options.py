"""Options that several verbs share, each documented here once."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

import tyro

from robustmaps.config import Fraction, Surgery, parse_surgery
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import parse_number
from robustmaps.models import Pool


@dataclass(frozen=True)
class AnyNetwork:
    """The network.

    Attributes:
        model: name of a network, a run folder, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME or
            MODULE:FUNCTION
        weights: file with weights of any program for a network that is named (default: random ones)
        strides: strides of a built-in network's downsampling steps, e.g. 1122 (default: the architecture's own)
        pool: pooling of a built-in network's last map; max is what the theory compares avg with (default:
            avg)
        classes: names of the network's outputs in their order, with commas, or a text file with one a line (default:
            the recorded order, or the data set's)
        seed: seed of an untrained network's weights, and of the measurement's random draws
    """

    model: tyro.conf.Positional[str]
    weights: str | None = None
    strides: str | None = None
    pool: Pool | None = None
    classes: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainedNetwork:
    """The network.

    Attributes:
        model: run folder, or a weights file of a run; or with --data a network: a name such as resnet18, timm:NAME or
            MODULE:FUNCTION
        weights: weights to take: best, best-clean or last of a run; or a file with those of a network that is no run,
            safetensors or .pt of any program, FILE#KEY for those under a key (default: best, or the network's own)
        strides: strides of a built-in network that is no run, e.g. 1122 (default: the architecture's own)
        pool: pooling of such a network's last map (default: avg)
        enlarge: enlargement of a network that is no run: upsample=2, first, last or numbers of steps, dilate, factor=4,
            silu, with commas, e.g. last,dilate; each part is an option of its own too, as in `robustmaps enlarge`
            (default: none)
        classes: names of the network's outputs in their order, with commas, or a text file with one a line (default:
            the data set's order)
    """

    model: tyro.conf.Positional[str | None] = None
    weights: Annotated[str | None, tyro.conf.arg(aliases=["--checkpoint"])] = None
    strides: str | None = None
    pool: Pool | None = None
    enlarge: str | None = None
    classes: str | None = None


@dataclass(frozen=True)
class AnySurgery(Surgery):
    """The enlargement.

    Attributes:
        enlarge: all of these in one, with commas, as in other commands, e.g. last,dilate (default: none)
    """

    enlarge: str | None = None

    @property
    def whole(self) -> Surgery:
        """As it was given, in one or in parts.

        Raises:
            InputError: a part is given twice, or can't be read.
        """
        parts = Surgery(**{item.name: getattr(self, item.name) for item in fields(Surgery)})
        if self.enlarge is None:
            return parts
        return parse_surgery(self.enlarge if parts.is_none else f"{self.enlarge},{parts}")


@dataclass(frozen=True)
class ShapedImages:
    """The images.

    Attributes:
        data: data set, as in `robustmaps data list` (default: the one that the network was trained on)
        image_size: side length in pixels to resize the images to (default: as the network was trained on, or the data
            set's own)
        channels: channels of the images: 1 turns colours grey, 3 repeats grey (default: likewise)
    """

    data: str | None = None
    image_size: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Images(ShapedImages):
    """The images.

    Attributes:
        samples: number of images, drawn evenly from the classes (default: all)
    """

    samples: int | None = None


@dataclass(frozen=True)
class SplitImages(Images):
    """The images.

    Attributes:
        split: split of the data set to draw from
    """

    split: Literal["test", "validation"] = "test"


@dataclass(frozen=True)
class Radius:
    """The perturbation.

    Attributes:
        eps: radius of the budget, for images in [0, 1] (default: the network's own, or 8/255)
    """

    eps: Fraction | None = None


@dataclass(frozen=True)
class Budget(Radius):
    """The perturbation.

    Attributes:
        norm: norm of the budget (default: the network's own, or linf)
    """

    norm: Literal["linf", "l2"] | None = None


@dataclass(frozen=True)
class AnyBudget(Radius):
    """The perturbation.

    Attributes:
        norm: norm of the budget (default: the network's own, or linf)
    """

    norm: Literal["linf", "l2", "l1"] | None = None


@dataclass(frozen=True)
class Computing:
    """Where to compute.

    Attributes:
        device: device to compute on: auto, cpu, cuda, cuda:1 or mps
    """

    device: str = "auto"


@dataclass(frozen=True)
class Spending:
    """The enlargements.

    Attributes:
        budget: largest cost, relative to the given network
        measure: cost that the budget limits
        upsamples: factors of upsampling to try, with commas
    """

    budget: str = "2.0x"
    measure: Literal["flops", "memory", "latency"] = "flops"
    upsamples: tuple[float, ...] = (1.0, 2.0)

    @property
    def times(self) -> float:
        """How many times the given network's cost may be spent.

        >>> Spending("2.5x").times
        2.5

        Raises:
            InputError: it is no multiple.
        """
        try:
            return parse_number(self.budget.removesuffix("x"), "budget")
        except InputError:
            raise InputError(
                f"budget={self.budget!r}: expected a multiple of the given network's cost, such as 2x"
            ) from None

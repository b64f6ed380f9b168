"""The table of networks with their sizes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robustmaps.models import _registry
from robustmaps.models._cost import count_parameters, trace_forward
from robustmaps.models._strides import Strides


@dataclass(frozen=True)
class CatalogEntry:
    """A network with its default strides.

    Attributes:
        name: the name for ``models.create``.
        family: the family's name in papers.
        strides: the default strides.
        parameters: number of learned values.
        flops: floating-point operations of a forward pass of one image, as in ``Cost``.
        map_size: (H, W) of the feature map before the final pooling.
    """

    name: str
    family: str
    strides: Strides
    parameters: int
    flops: int
    map_size: tuple[int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {**asdict(self), "strides": str(self.strides), "map_size": self.map_size and list(self.map_size)}


def catalog(names: Iterable[str] | None = None, *, image_px: int = 32, num_classes: int = 10) -> list[CatalogEntry]:
    """The sizes of networks with their default strides, from shapes alone: no weights are allocated.

    Args:
        names: the networks; None for all.
        image_px: side length of the three-channel image.
        num_classes: number of logits.

    Raises:
        InputError: a name is unknown, or the image is too small for a network.
    """
    entries = []
    for name in _registry.names() if names is None else names:
        row = _registry.architecture(name)
        with torch.device("meta"):
            network = _registry.create(name, num_classes=num_classes).eval()
            flops, map_size = trace_forward(network, torch.empty(1, 3, image_px, image_px))
        entries.append(CatalogEntry(name, row.family, row.strides, count_parameters(network), flops, map_size))
    return entries

"""Transfer: attacks made on each of several networks, tried on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.device import device_of
from robustmaps.engine.finite import is_right
from robustmaps.engine.measured import Measured
from robustmaps.engine.view import plain_view


@dataclass(frozen=True, eq=False)
class Transfer:
    """Which samples each network classifies correctly, clean and under the attacks made on each.

    Attributes:
        clean: booleans (networks, samples).
        attacked: booleans (sources, targets, samples): right on the image made against the source.
    """

    clean: NDArray[np.bool_]
    attacked: NDArray[np.bool_]

    def accuracy(self, source: int, target: int) -> Measured:
        """The share of all samples that the target classifies correctly, clean and as attacked on the source.

        On the diagonal this is robust accuracy under the attack.
        """
        right = self.clean[target] & self.attacked[source, target]
        return Measured.share(int(right.sum()), len(right))

    def transferred(self, source: int, target: int) -> Measured | None:
        """The share of the samples broken on the source, and right on the target when clean, that break the target.

        None if there are no such samples.
        """
        broken = self.clean[source] & ~self.attacked[source, source] & self.clean[target]
        if not broken.any():
            return None
        return Measured.share(int((broken & ~self.attacked[source, target]).sum()), int(broken.sum()))


def for_transfer(attacks: Sequence[Attack]) -> list[Attack]:
    """The attacks without stops at the first misclassified image, which barely crosses the source's own boundary."""
    return [_to_the_end(attack) for attack in attacks]


def _to_the_end(attack: Any) -> Attack:
    if is_dataclass(attack) and not isinstance(attack, type) and getattr(attack, "early_stop", False) is True:
        attack = replace(attack, early_stop=False)
    made: Attack = attack
    return made


@torch.no_grad()
def right_on(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> NDArray[np.bool_]:
    """Which images (N, C, H, W) the plain network classifies as ``y`` (N,), booleans (N,)."""
    device = device_of(model)
    with plain_view(model) as plain:
        parts = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
        each = [is_right(plain(images.float().to(device)), labels.to(device)).cpu() for images, labels in parts]
    found: NDArray[np.bool_] = torch.cat(each).numpy()
    return found

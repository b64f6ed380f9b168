"""The base of attacks of many steps: a budget in any norm, checked input and progress reports."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._base import check_batch, check_labels
from robustmaps.engine.errors import unknown
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import check_eps
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.view import AttackView, plain_view

Norm = Literal["linf", "l2", "l1"]
NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True, eq=False)
class Batch:
    """What one call of an attack works on.

    Attributes:
        view: a view of the network.
        x, y: images (N, C, H, W) and labels (N,), both checked.
        logits: the network's (N, K) for these images.
        generator: source of the seeds.
        watcher: receives reports in steps of the attack.
    """

    view: AttackView
    x: Tensor
    y: Tensor
    logits: Tensor
    generator: torch.Generator | None
    watcher: Watcher

    @property
    def standing(self) -> Tensor:
        """Which images are classified correctly, (N,)."""
        return is_right(self.logits, self.y)


@dataclass(frozen=True)
class WatchedAttack(ABC):
    """An attack that reports its progress to a ``watcher`` every few steps.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius of the ball, in units of images in [0, 1].
    """

    norm: Norm = "linf"
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        check_eps(self.eps, self.norm)

    @property
    @abstractmethod
    def name(self) -> str:
        """The name on the command line."""

    def __call__(
        self,
        model: nn.Module | AttackView,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        watcher: Watcher = ignore,
    ) -> Tensor:
        """Adversarial images for ``x``, shape (N, C, H, W).

        Args:
            model: a network, used in evaluation mode and restored afterwards, or a view of one.
            x: images (N, C, H, W) in [0, 1].
            y: true labels (N,).
            generator: source of the seeds. A run's start depends on its seed, the sample's position in the batch and
                the variant (restart, target), not on the results of other samples.
            watcher: receives reports in steps of the attack.

        Raises:
            InputError: images or labels are invalid.
        """
        check_batch(x, y)
        with plain_view(model) as view, torch.no_grad():
            x = view.prepared(x)
            logits = view(x)
            check_labels(y, logits.shape[1])
            return self._attacked(Batch(view, x, y, logits, generator, watcher))

    @abstractmethod
    def _attacked(self, batch: Batch) -> Tensor:
        """Adversarial images for a batch that was checked."""

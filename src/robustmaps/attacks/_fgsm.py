"""The fast gradient method."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._pgd import PGD
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.engine.view import AttackView


@dataclass(frozen=True)
class FGSM:
    """One full step along the gradient's sign, or along the gradient for l2 (Goodfellow et al., arXiv 1412.6572).

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: the length of the step, in units of images in [0, 1].

    Raises:
        InputError: a value is out of range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255

    name = "fgsm"

    def __post_init__(self) -> None:
        self._as_pgd()

    def __call__(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images for ``x``; see `PGD`. ``generator`` is unused."""
        return self._as_pgd()(model, x, y, generator=generator)

    def _as_pgd(self) -> PGD:
        return PGD(norm=self.norm, eps=self.eps, steps=1, step_size=self.eps, start="none")


ROW = AttackRow(
    name="fgsm",
    summary="one step along the gradient's sign (arXiv 1412.6572)",
    kind=FGSM,
    passes=lambda attack: GRADIENT,  # noqa: ARG005
)

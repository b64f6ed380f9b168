"""The fast gradient method, and the training attack of N-FGSM: the same step from strong noise."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._base import check_batch
from robustmaps.attacks._geometry import steepest, uniform_in_ball
from robustmaps.attacks._losses import LOSSES
from robustmaps.attacks._pgd import PGD
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.engine.errors import unknown
from robustmaps.engine.numbers import check_at_least, check_eps
from robustmaps.engine.view import AttackView, plain_view


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


@dataclass(frozen=True)
class NoiseFGSM:
    """A step of length ``eps`` from uniform noise, without projection (de Jorge et al., arXiv 2202.01181, algorithm 1).

    For training only: its images are up to ``(noise + 1) * eps`` away, so evaluations reject them.

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: the length of the step, in units of images in [0, 1].
        noise: the noise's radius as a multiple of ``eps``.

    Raises:
        InputError: a value is out of range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    noise: float = 2.0

    name = "n-fgsm"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise unknown("norm", self.norm, ["linf", "l2"])
        check_eps(self.eps, self.norm)
        check_at_least("noise", self.noise, 0)

    def __call__(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to train on; see `PGD`."""
        check_batch(x, y)
        loss = LOSSES["ce"]
        with plain_view(model) as view, torch.no_grad():
            x = view.prepared(x)
            # Clip the start, as in the released code: from far below 0 the step would not return.
            noise = uniform_in_ball(x, self.noise * self.eps, self.norm, generator) if self.noise else 0.0
            start = (x + noise).clamp(0.0, 1.0)
            target = loss.target(view, x, y)
            gradient = view.gradient(start, lambda logits: loss.value(logits, target))[2]
            return (start + self.eps * steepest(gradient, self.norm)).clamp_(0.0, 1.0)


ROW = AttackRow(
    name="fgsm",
    title="FGSM",
    summary="one step along the gradient's sign (arXiv 1412.6572)",
    kind=FGSM,
    passes=lambda attack: GRADIENT,  # noqa: ARG005
)

"""A warning of an evaluation, and what the evaluation has computed when it is looked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustmaps.engine.reading.pages import explain
from robustmaps.engine.view import AttackView

# Images looked at: each costs about nine passes. One in 16 keeps that below a tenth of the cheapest attack, FGSM, whose
# evaluation passes every image five times; more than 16 find nothing more.
_SHARE, _FEWEST, _MOST = 16, 4, 16
_MOST_CONFIRMING = 32


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt an evaluation's figures.

    Attributes:
        name: the check, which is also its page.
        text: what was measured.
        mend: what to do about it.
    """

    name: str
    text: str
    mend: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}; {self.mend} ({explain(self.name)})"


@dataclass(frozen=True)
class Seen:
    """An evaluation after it has classified its images.

    Attributes:
        model: the network, in evaluation mode.
        plain: its view.
        modes: every module and whether it was originally in training mode.
        x, y: all images (N, C, H, W) in [0, 1] and labels (N,).
        predictions: the classes that the network answers, (N,), on the CPU.
        logits: those of the first batch, (B, K), on the network's device.
        norm, eps: the budget; None if nothing is attacked.
        seed: seed of all random draws.
    """

    model: nn.Module
    plain: AttackView
    modes: Sequence[tuple[nn.Module, bool]]
    x: Tensor
    y: Tensor
    predictions: Tensor
    logits: Tensor
    norm: str | None
    eps: float
    seed: int

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.logits.device

    def images(self, rows: Tensor) -> Tensor:
        """Float images on the network's device."""
        return self.x[rows].float().to(self.device)

    @property
    def correct(self) -> Tensor:
        """Whether each image is classified correctly, (N,), on the CPU."""
        return self.predictions == self.y.cpu()

    def few(self) -> Tensor:
        """Rows of the first batch to look at, if possible of correctly classified images."""
        return evenly(self._candidates(), min(max(len(self.x) // _SHARE, _FEWEST), _MOST))

    def more(self) -> Tensor:
        """More such rows, to confirm what the few have shown."""
        return evenly(self._candidates(), _MOST_CONFIRMING)

    def _candidates(self) -> Tensor:
        right = self.correct[: len(self.logits)].nonzero().squeeze(1)
        return right if len(right) else torch.arange(len(self.logits))


def evenly(rows: Tensor, count: int) -> Tensor:
    """That many of the rows, evenly spread; all if there are no more."""
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]

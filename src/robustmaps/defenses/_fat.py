"""Friendly adversarial training: the attack stops soon after an error."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from robustmaps.attacks import PGD
from robustmaps.defenses._at import CrossEntropyAtExamples
from robustmaps.defenses._clean_and_adversarial import TRADES
from robustmaps.defenses._registry import DefenseRow
from robustmaps.engine.numbers import check_at_least, check_whole
from robustmaps.engine.view import AttackView


class _Friendly:
    """The attack of friendly adversarial training, and how it grows stronger as training proceeds."""

    attack: PGD
    tau: int | None
    step_noise: float
    # Shares of the training after which tau grows by one.
    grows_at: ClassVar[tuple[float, ...]]

    def __post_init__(self) -> None:
        if self.tau is not None:
            check_whole("tau", self.tau, 0)
        check_at_least("step_noise", self.step_noise, 0)

    def at(self, progress: float) -> Self:
        """The defence after this share of the training."""
        if self.tau is not None:
            return self
        return replace(self, tau=sum(progress >= share for share in self.grows_at))  # type: ignore[type-var]

    def inner(self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Tensor:
        """PGD's last iterates, in the shape of ``x``."""
        friendly = replace(self.attack, early_stop=True, tau=self.tau or 0, step_noise=self.step_noise)
        return friendly(model, x, y, generator=generator)


@dataclass(frozen=True)
class FAT(_Friendly, CrossEntropyAtExamples):
    """Friendly adversarial training (Zhang et al., arXiv 2002.11242, algorithm 1): PGD that stops soon after an error.

    Attributes:
        attack: default: l_inf PGD with eps 8/255 and up to 10 steps of 2/255.
        tau: further steps of a sample once it is misclassified; None follows the released code's schedule, 0, then 1
            from epoch 51 and 2 from epoch 91 of 120, scaled to the run.
        step_noise: uniform noise in [0, ``step_noise``) on every entry of a step's direction; the program of
            arXiv 2202.12435 uses 0.001.
    """

    attack: PGD = field(default_factory=PGD)
    tau: int | None = None
    step_noise: float = field(default=0.0, repr=False)

    name = "fat"
    grows_at = (50 / 120, 90 / 120)


@dataclass(frozen=True)
class FriendlyTRADES(_Friendly, TRADES):
    """Friendly adversarial training for TRADES (Zhang et al., arXiv 2002.11242, section 4.2).

    The loss is that of TRADES; its attack on the divergence stops soon after an error.

    Attributes:
        attack: default: l_inf PGD on the divergence with eps 8/255 and up to 10 steps of 2/255 from a normal start.
        beta: weight of robustness against accuracy.
        tau: further steps of a sample once it is misclassified; None follows the released code's schedule, 0, then 1, 2
            and 3 from epochs 31, 51 and 71 of 85 on, scaled to the run.
        step_noise: as in `FAT`; the released code uses none here.
    """

    attack: PGD = field(default_factory=lambda: PGD(loss="kl", start="normal"))
    tau: int | None = None
    step_noise: float = 0.0

    name = "fat-trades"
    grows_at = (30 / 85, 50 / 85, 70 / 85)

    def __post_init__(self) -> None:
        _Friendly.__post_init__(self)
        TRADES.__post_init__(self)


ROWS = (
    DefenseRow(
        name="fat",
        title="FAT",
        summary="friendly adversarial training: PGD that stops soon after an error (arXiv 2002.11242)",
        kind=FAT,
        attack=PGD,
        parameters={
            "steps": "steps of the training attack (default: 10)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "tau": "further steps after an error (default: 0, 1, then 2 as training progresses)",
            "step_noise": "noise on the direction of a step, such as 0.001 (default: 0)",
        },
        awp_gamma=0.005,
    ),
    DefenseRow(
        name="fat-trades",
        title="FAT-TRADES",
        summary="TRADES whose attack stops soon after an error (arXiv 2002.11242)",
        kind=FriendlyTRADES,
        attack=partial(PGD, loss="kl", start="normal"),
        parameters={
            "steps": "steps of the training attack (default: 10)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "beta": "weight of the divergence (default: 6)",
            "tau": "further steps after an error (default: 0, 1, 2, then 3 as training progresses)",
            "step_noise": "noise on the direction of a step, such as 0.001 (default: 0)",
        },
        awp_gamma=0.005,
    ),
)

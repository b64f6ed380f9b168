"""The section of the defence, and of the attack that it trains against. No PyTorch here."""

from dataclasses import dataclass
from typing import Any, Literal

from robustmaps import defenses
from robustmaps.config._flat_keys import Fraction
from robustmaps.config._unusual import unusual
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_eps
from robustmaps.engine.registry import parse_parameters


@dataclass(frozen=True)
class DefenseConfig:
    """The defence, and the attack that it trains against.

    Attributes:
        defense: name of the defence; see the list above
        norm: norm of the budget
        eps: radius of the budget, for images in [0, 1]
        steps: steps of the training attack; leave it out for defences with steps of their own
        step_size: length of a step (default: 2.5 * eps / steps, or 1.25 * eps for fast-at)
        beta: weight of the pairing or of the divergence (default: alp 0.5, trades 6, mart 5, hat 2.5, dajat 11)
        awp_gamma: relative size of the weight perturbation (default: 0.01 for at-awp, else 0.005)
        awp_warmup: share of training before weights are perturbed, e.g. 10/200 (default: 0)
        tau: steps that fat still makes after a misclassification (default: 0, 1 and 2 as training proceeds)
        replays: steps that free-at makes on a batch (default: 8)
        helper: run folder or weights file of hat's helper, a network trained with --defense standard
        helper_sha256: hash of the helper's weights, filled in where left out; others are then refused
        defense_parameters: parameters of the defence without an option of their own, as NAME=VALUE with commas
    """

    defense: str = "at"
    norm: Literal["linf", "l2"] = "linf"
    eps: Fraction = 8 / 255
    steps: int = 10
    step_size: Fraction | None = None
    beta: float | None = None
    awp_gamma: float | None = None
    awp_warmup: float | None = None
    tau: int | None = None
    replays: int | None = None
    helper: str | None = None
    helper_sha256: str | None = None
    defense_parameters: str | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of the defence that are not as usual."""
        further = parse_parameters(self.defense_parameters, "defense_parameters")
        return unusual(self, ("defense", "norm", "eps", "helper_sha256", "defense_parameters")) | further

    def check(self, base: "DefenseConfig | None" = None) -> None:
        """Refuse what would be without effect; opens nothing.

        Args:
            base: what holds already; only what differs from it is looked at.

        Raises:
            InputError: an unknown defence, or a parameter that it does not take.
        """
        if self.helper_sha256 is not None and self.helper is None:
            raise InputError(f"helper_sha256={self.helper_sha256}: needs helper, the network whose hash it is")
        there = {} if base is None else base.given
        defenses.check_parameters(self.defense, {k: v for k, v in self.given.items() if there.get(k) != v})

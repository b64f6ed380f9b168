"""The attacks of an evaluation. No PyTorch here."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from robustmaps import attacks
from robustmaps.config._flat_keys import Fraction
from robustmaps.config._unusual import unusual
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.registry import parse_parameters, written


@dataclass(frozen=True)
class AttackConfig:
    """The attack, or several.

    Attributes:
        attack: name of the attack, see the list above; or several with commas, each on what the ones before left
        version: version of AutoAttack; a3 takes about an eighth of the passes (default: standard)
        norm: norm of the budget (default: the run's own)
        eps: radius of the budget, for images in [0, 1]; several with commas for a curve (default: the run's own)
        steps: gradient steps per restart, for pgd and foolbox's attacks (default: 20)
        step_size: length of a step, for pgd and some of foolbox's attacks (default: 2.5 * eps / steps)
        relative_step: length of a step relative to eps, in place of step_size, e.g. 0.25
        restarts: independent random starts, for pgd; the worst case counts (default: 5)
        loss: loss that pgd maximises (default: ce)
        exhaustive: make every step of AutoAttack, also in runs that cannot succeed
        attack_parameters: parameters of the attacks without an option of their own, as NAME=VALUE with commas, or
            ATTACK.NAME=VALUE for one attack of several, e.g. deepfool.overshoot=0.1,cw.steps=100
    """

    attack: str = "pgd"
    version: Literal["standard", "plus", "rand", "a3"] | None = None
    norm: Literal["linf", "l2", "l1"] | None = None
    eps: tuple[Fraction, ...] = ()
    steps: int | None = None
    step_size: Fraction | None = None
    relative_step: float | None = None
    restarts: int | None = None
    loss: Literal["ce", "margin", "kl"] | None = None
    exhaustive: bool = False
    attack_parameters: str | None = None

    @property
    def names(self) -> list[str]:
        """The attacks, in order."""
        return [name.strip() for name in self.attack.split(",")]

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that were given for all attacks that take them."""
        further = {name: value for name, value in self._further.items() if "." not in name}
        return unusual(self, ("attack", "norm", "eps", "attack_parameters")) | further

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that were given for one attack each, as ``ATTACK.NAME``."""
        return {name: value for name, value in self._further.items() if "." in name}

    @property
    def _further(self) -> dict[str, Any]:
        return parse_parameters(self.attack_parameters, "attack_parameters")

    def parameters(self, name: str) -> dict[str, Any]:
        """The given parameters of one of the attacks: its own, and the common ones that it takes.

        Raises:
            InputError: an unknown attack.
        """
        taken = attacks.takes(name)
        own = {key.rpartition(".")[2]: each for key, each in self.own.items() if key.rpartition(".")[0] == name}
        return {key: each for key, each in self.given.items() if key in taken} | own

    def alone(self, name: str) -> "AttackConfig":
        """One of the attacks by itself, with the parameters that it takes."""
        usual, options = AttackConfig(), {item.name for item in fields(self)}
        mine = self.parameters(name)
        further = {key: value for key, value in mine.items() if key not in options}
        return replace(
            usual,
            attack=name,
            norm=self.norm,
            eps=self.eps,
            **{key: value for key, value in mine.items() if key in options},
            attack_parameters=",".join(f"{key}={written(value)}" for key, value in further.items()) or None,
        )

    def columns(self) -> list["AttackConfig"]:
        """Each of the attacks by itself, in order.

        Raises:
            InputError: there is only one, or one occurs twice.
        """
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise InputError(
                f"attack={self.attack} with each: expected two or more attacks, each once, such as "
                "fgsm,pgd-20,autoattack"
            )
        return [self.alone(name) for name in self.names]

    def check(self) -> None:
        """Refuse what would be without effect; opens nothing.

        Raises:
            InputError: an unknown attack, a parameter that none of the attacks takes, or one that is also an option.
        """
        options = unusual(self, ("attack", "norm", "eps", "attack_parameters"))
        for key in options.keys() & self._further.keys():
            raise InputError(
                f"{key}={options[key]} and attack_parameters={self.attack_parameters!r}: expected {key} in one of the "
                f"two; for one attack of several, write ATTACK.{key}=VALUE"
            )
        attacks.check_parameters(self.names, self.given)
        for key, value in self.own.items():
            owner, _, option = key.rpartition(".")
            if owner not in self.names:
                raise unknown(f"attack in attack_parameters={self.attack_parameters!r}:", owner, self.names)
            attacks.check_parameters([owner], {option: value})

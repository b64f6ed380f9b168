"""From the names on the command line to attacks."""

from collections.abc import Callable
from typing import Any

from robustmaps.attacks import FGSM, FOOLBOX_ATTACKS, PARTS, PGD, Attack, AutoAttack, Foolbox
from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError, unknown


def create_attacks(config: AttackConfig, norm: str, eps: float) -> list[Attack]:
    """The attacks that the configuration names, in order.

    Args:
        config: the configuration; its own ``eps`` is not looked at, since it may hold several.
        norm: used where the configuration leaves it out.
        eps: the budget.

    Raises:
        InputError: an unknown name, or settings that none of the attacks takes.
    """
    budget: dict[str, Any] = {"norm": config.norm or norm, "eps": eps}
    names = [name.strip() for name in config.attack.split(",")]
    for name in names:
        if name not in _CREATE:
            raise unknown("attack", name, _CREATE)
    if config.steps is not None and not {"pgd", *FOOLBOX_ATTACKS} & set(names):
        raise InputError(f"steps={config.steps}: {config.attack} has a fixed number of them; leave steps out")
    return [_CREATE[name](config, budget) for name in names]


def _pgd(config: AttackConfig, budget: dict[str, Any]) -> Attack:
    return PGD(
        **budget,
        steps=config.steps or 20,
        step_size=config.step_size,
        restarts=config.restarts,
        loss=config.loss,
        start="normal" if config.loss == "kl" else "uniform",
        early_stop=True,
    )


def _autoattack(config: AttackConfig, budget: dict[str, Any], version: Any) -> Attack:
    attack = AutoAttack(**budget, version=version)
    return AutoAttack(**budget, version=version, patience=None if config.exhaustive else attack.patience)


_CREATE: dict[str, Callable[[AttackConfig, dict[str, Any]], Attack]] = {
    "pgd": _pgd,
    "fgsm": lambda config, budget: FGSM(**budget),  # noqa: ARG005
    "autoattack": lambda config, budget: _autoattack(config, budget, config.version),
    **{name: lambda config, budget, part=name: _autoattack(config, budget, (part,)) for name in PARTS},  # type: ignore[misc]
    **{name: lambda config, budget, kind=name: Foolbox(kind, **budget, steps=config.steps) for name in FOOLBOX_ATTACKS},  # type: ignore[misc]
}

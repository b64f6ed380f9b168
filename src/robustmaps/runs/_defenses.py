"""From the names on the command line to defences."""

import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args

from robustmaps import defenses
from robustmaps.attacks import FGSM, PGD, Attack, NoiseFGSM
from robustmaps.config import DefenseConfig, DefenseName
from robustmaps.defenses import AWP, Defense
from robustmaps.engine.errors import InputError, unknown
from robustmaps.networks import open_checkpoint

_KINDS: dict[str, type[Any]] = {
    "standard": defenses.Standard,
    "at": defenses.AT,
    "alp": defenses.ALP,
    "trades": defenses.TRADES,
    "mart": defenses.MART,
    "fat": defenses.FAT,
    "hat": defenses.HAT,
    "dajat": defenses.DAJAT,
    "fast-at": defenses.FastAT,
    "n-fgsm": defenses.NFGSM,
    "free-at": defenses.FreeAT,
}
_AWP = "-awp"
# arXiv 2004.05884, section 5: 0.01 for AT, 0.005 for TRADES.
_GAMMA, _OTHER_GAMMA = 0.01, 0.005

_LEAST_L2 = 0.05
_STEPS = {"fast-at": 1, "n-fgsm": 1, "free-at": 1, "dajat": 5}
"""How many steps those defences make whose number follows from their paper."""
_OWN_STEP_SIZE = ("n-fgsm", "free-at", "dajat")
"""Defences whose step does, too. Without a defence a step size says nothing, as eps does not."""


def create_defense(config: DefenseConfig) -> Defense:
    """The defence that the configuration names.

    Raises:
        InputError: an unknown name, or a parameter that the defence does not have.
    """
    if config.defense not in get_args(DefenseName):
        raise unknown("defense", config.defense, get_args(DefenseName))
    if config.norm == "l2" and config.eps < _LEAST_L2:
        warnings.warn(
            f"eps={config.eps:g} is next to nothing for l_2; 128/255 is usual for 32 x 32 images (give --eps)",
            stacklevel=2,
        )
    name = config.defense.removesuffix(_AWP)
    kind = _KINDS[name]
    taken = {item.name for item in fields(kind)} | ({"awp_gamma", "awp_warmup"} if name != config.defense else set())
    given = {
        key: value
        for key in ("beta", "awp_gamma", "awp_warmup", "tau", "replays", "helper")
        if (value := getattr(config, key)) is not None
    }
    for key, value in given.items():
        if key not in taken:
            raise InputError(f"{key}={value!r}: {config.defense} has no such parameter; leave it out")
    if config.step_size is not None and name in _OWN_STEP_SIZE:
        raise InputError(f"step_size={config.step_size:g}: {config.defense} has a step of its own; leave it out")
    if config.steps not in (DefenseConfig.steps, _STEPS.get(name, config.steps)):
        raise InputError(f"steps={config.steps}: {config.defense} has steps of its own ({_STEPS[name]}); leave it out")
    if "helper" in taken:
        given["helper"] = _helper(config.helper)
    gamma = given.pop("awp_gamma", _GAMMA if name == "at" else _OTHER_GAMMA)
    warmup = given.pop("awp_warmup", 0.0)
    if "attack" in taken:
        given["attack"] = _ATTACKS.get(name, _pgd)(config)
    defense: Defense = kind(**given)
    if name == config.defense:
        return defense
    try:
        return AWP(defense, gamma, warmup)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"awp_{error}") from error


def _helper(path: str | None) -> Any:
    if path is None:
        raise InputError("helper: hat needs the run of a network trained with --defense standard; give --helper RUN")
    return open_checkpoint(path).model.requires_grad_(False).eval()


def _pgd(config: DefenseConfig, **changes: Any) -> PGD:
    values = {"norm": config.norm, "eps": config.eps, "steps": config.steps, "step_size": config.step_size}
    return PGD(**{**values, **changes})


_ATTACKS: dict[str, Callable[[DefenseConfig], Attack]] = {
    "trades": lambda config: _pgd(config, loss="kl", start="normal"),
    "hat": lambda config: _pgd(config, loss="kl", start="normal"),
    "mart": lambda config: _pgd(config, start="normal"),
    "fast-at": lambda config: _pgd(config, steps=1),
    "n-fgsm": lambda config: NoiseFGSM(config.norm, config.eps),
    "free-at": lambda config: FGSM(config.norm, config.eps),
}

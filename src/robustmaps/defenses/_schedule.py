"""Changes of a defence during training, and the attack that validates it."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from robustmaps.attacks import PGD, Attack

D = TypeVar("D")


def at(defense: D, progress: float) -> D:
    """The defence after a share of the training, in [0, 1]."""
    phase = getattr(defense, "at", None)
    return defense if phase is None else cast(D, phase(progress))


def scaled(defense: D, factor: float) -> D:
    """The defence with budget and step size multiplied by ``factor``, for the warm-up of the budget."""
    changes: dict[str, Any] = {}
    for item in fields(defense) if is_dataclass(defense) else ():
        value = getattr(defense, item.name)
        if item.name == "defense":
            changes[item.name] = scaled(value, factor)
        elif item.name == "attack" and is_dataclass(value):
            changes[item.name] = _smaller(value, factor)
    return replace(defense, **changes) if changes else defense  # type: ignore[type-var]


def _smaller(attack: Any, factor: float) -> Any:
    step_size = getattr(attack, "step_size", None)
    steps = {} if step_size is None else {"step_size": step_size * factor}
    return replace(attack, eps=attack.eps * factor, **steps)


def validation_attack(attack: Attack | None) -> Attack | None:
    """The attack that validates networks trained against ``attack``: its ``for_validation``, else PGD of its budget."""
    own: Attack | None = getattr(attack, "for_validation", None)
    if attack is None or own is not None:
        return own
    return PGD(norm=cast(Any, attack.norm), eps=attack.eps) if attack.norm in ("linf", "l2") else attack

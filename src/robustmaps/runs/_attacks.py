"""Create attacks from their configuration, and compare them by their values."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from robustmaps import attacks
from robustmaps.attacks import Attack
from robustmaps.config import AttackConfig
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import ALONE, attack_settings

_MARKS = ("eight_bit", "every", ALONE)


def create_attacks(config: AttackConfig, norm: str, eps: float) -> list[Attack]:
    """Create the configured attacks, in order.

    Args:
        config: the configuration; its ``eps`` is ignored, since it may contain several radii.
        norm: the norm of the budget, if not configured.
        eps: the radius of the budget.

    Raises:
        InputError: a name is unknown, or none of the attacks has a given parameter.
    """
    config.check()
    return [attacks.create(name, config.norm or norm, eps, **config.parameters(name)) for name in config.names]


def spellings(given: Sequence[Attack]) -> list[list[Attack]]:
    """The attacks as they are given, then with every other spelling of the same values."""
    ways = [tuple(dict.fromkeys((one, *getattr(one, "spellings", ())))) for one in given]
    return [list(each) for each in product(*ways)]


def same_values(recorded: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recorded settings of attacks, equal for the same values however they were spelled."""
    return [_spelled_first(dict(settings)) for settings in recorded]


def _spelled_first(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("step_size") is None and settings.get("relative_step") is None:
        return settings
    marks = {name: settings.pop(name) for name in _MARKS if name in settings}
    try:
        attack = attacks.from_settings(settings)
    except InputError:  # of a package that is not installed here
        return settings | marks
    return {**attack_settings(getattr(attack, "spellings", (attack,))[0])[0], **marks}

"""From the names on the command line to attacks."""

from typing import Any

from robustmaps import attacks
from robustmaps.attacks import Attack
from robustmaps.config import AttackConfig


def create_attacks(config: AttackConfig, norm: str, eps: float) -> list[Attack]:
    """The attacks that the configuration names, in order.

    Args:
        config: the configuration; its own ``eps`` is not looked at, since it may hold several.
        norm: used where the configuration leaves it out.
        eps: the budget.

    Raises:
        InputError: an unknown name, or settings that none of the attacks takes.
    """
    config.check()
    given: dict[str, Any] = config.given
    return [
        attacks.create(
            name, config.norm or norm, eps, **{key: each for key, each in given.items() if key in attacks.takes(name)}
        )
        for name in config.names
    ]

"""Create attacks from their configuration."""

from robustmaps import attacks
from robustmaps.attacks import Attack
from robustmaps.config import AttackConfig


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

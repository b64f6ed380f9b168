"""Attacks: frozen values that are called on a batch, ``attack(model, x, y) -> x_adv``."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.attacks._a3 import A3
    from robustmaps.attacks._apgd import APGD
    from robustmaps.attacks._autoattack import PARTS, AutoAttack
    from robustmaps.attacks._base import Attack, check_batch, check_labels
    from robustmaps.attacks._fab import FAB
    from robustmaps.attacks._fgsm import FGSM, NoiseFGSM
    from robustmaps.attacks._foolbox import Foolbox
    from robustmaps.attacks._geometry import norms, project, shrink, steepest, uniform_in_ball
    from robustmaps.attacks._losses import kl_divergence, logit_margin
    from robustmaps.attacks._pgd import PGD
    from robustmaps.attacks._registry import (
        GRADIENT,
        AttackRow,
        called,
        check_parameters,
        create,
        from_settings,
        listed,
        passes,
        register,
        takes,
        title_of,
    )
    from robustmaps.attacks._square import Square
    from robustmaps.attacks._watched import WatchedAttack

__all__ = [
    "A3",
    "APGD",
    "FAB",
    "FGSM",
    "GRADIENT",
    "PARTS",
    "PGD",
    "Attack",
    "AttackRow",
    "AutoAttack",
    "Foolbox",
    "NoiseFGSM",
    "Square",
    "WatchedAttack",
    "called",
    "check_batch",
    "check_labels",
    "check_parameters",
    "create",
    "from_settings",
    "kl_divergence",
    "listed",
    "logit_margin",
    "norms",
    "passes",
    "project",
    "register",
    "shrink",
    "steepest",
    "takes",
    "title_of",
    "uniform_in_ball",
]

__getattr__, __dir__ = lazy(__name__, __file__)

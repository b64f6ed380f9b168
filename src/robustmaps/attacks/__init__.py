"""Layer 2: attacks, as frozen values called on a batch: ``attack(model, x, y) -> x_adv``."""

from robustmaps.attacks._apgd import APGD
from robustmaps.attacks._autoattack import PARTS, AutoAttack
from robustmaps.attacks._base import Attack, check_batch, check_labels
from robustmaps.attacks._fab import FAB
from robustmaps.attacks._fgsm import FGSM
from robustmaps.attacks._foolbox import METHODS, Foolbox
from robustmaps.attacks._geometry import norms, project, shrink, steepest
from robustmaps.attacks._noise_fgsm import NoiseFGSM
from robustmaps.attacks._pgd import PGD
from robustmaps.attacks._runs import WatchedAttack
from robustmaps.attacks._square import Square

FOOLBOX_ATTACKS = tuple(METHODS)
"""The names that `Foolbox` takes."""

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "FOOLBOX_ATTACKS",
    "PARTS",
    "PGD",
    "Attack",
    "AutoAttack",
    "Foolbox",
    "NoiseFGSM",
    "Square",
    "WatchedAttack",
    "check_batch",
    "check_labels",
    "norms",
    "project",
    "shrink",
    "steepest",
]

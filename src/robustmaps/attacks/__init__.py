"""Layer 2: attacks, as frozen values called on a batch: ``attack(model, x, y) -> x_adv``."""

from robustmaps.attacks._apgd import APGD
from robustmaps.attacks._base import Attack, check_batch, check_labels
from robustmaps.attacks._fgsm import FGSM
from robustmaps.attacks._geometry import norms, project
from robustmaps.attacks._pgd import PGD

__all__ = ["APGD", "FGSM", "PGD", "Attack", "check_batch", "check_labels", "norms", "project"]

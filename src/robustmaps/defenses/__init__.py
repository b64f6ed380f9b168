"""Layer 3: defences, as frozen values with a loss: ``defense.loss(model, x, y)``."""

from robustmaps.defenses._at import AT
from robustmaps.defenses._base import Defense, Loss, count_correct
from robustmaps.defenses._standard import Standard

__all__ = ["AT", "Defense", "Loss", "Standard", "count_correct"]

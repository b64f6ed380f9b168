"""Layer 3: defences, as frozen values with a loss: ``defense.loss(model, x, y)``."""

from robustmaps.defenses._at import AT, FAT, NFGSM, FastAT, FreeAT
from robustmaps.defenses._awp import AWP
from robustmaps.defenses._base import Defense, Loss, Minimax, count_correct
from robustmaps.defenses._clean_and_adversarial import ALP, MART, TRADES
from robustmaps.defenses._dajat import DAJAT
from robustmaps.defenses._hat import HAT
from robustmaps.defenses._schedule import at, scaled, validation_attack
from robustmaps.defenses._standard import Standard

__all__ = [
    "ALP",
    "AT",
    "AWP",
    "DAJAT",
    "FAT",
    "HAT",
    "MART",
    "NFGSM",
    "TRADES",
    "Defense",
    "FastAT",
    "FreeAT",
    "Loss",
    "Minimax",
    "Standard",
    "at",
    "count_correct",
    "scaled",
    "validation_attack",
]

"""Defences: frozen values with a training loss, ``defense.loss(model, x, y)``."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.defenses._at import AT, NFGSM, FastAT, FreeAT
    from robustmaps.defenses._awp import AWP
    from robustmaps.defenses._base import Defense, Loss, Minimax, ReplayingDefense, count_correct, cross_entropy
    from robustmaps.defenses._clean_and_adversarial import ALP, MART, TRADES
    from robustmaps.defenses._dajat import DAJAT
    from robustmaps.defenses._fat import FAT, FriendlyTRADES
    from robustmaps.defenses._hat import HAT
    from robustmaps.defenses._liet import LIET
    from robustmaps.defenses._registry import (
        DefenseRow,
        check_parameters,
        create,
        find,
        is_attacked,
        listed,
        register,
        title_of,
    )
    from robustmaps.defenses._schedule import at, scaled, validation_attack
    from robustmaps.defenses._standard import Standard

__all__ = [
    "ALP",
    "AT",
    "AWP",
    "DAJAT",
    "FAT",
    "HAT",
    "LIET",
    "MART",
    "NFGSM",
    "TRADES",
    "Defense",
    "DefenseRow",
    "FastAT",
    "FreeAT",
    "FriendlyTRADES",
    "Loss",
    "Minimax",
    "ReplayingDefense",
    "Standard",
    "at",
    "check_parameters",
    "count_correct",
    "create",
    "cross_entropy",
    "find",
    "is_attacked",
    "listed",
    "register",
    "scaled",
    "title_of",
    "validation_attack",
]

__getattr__, __dir__ = lazy(__name__, __file__)

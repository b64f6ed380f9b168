"""Images, decoded once, split without leaks and served in shuffled, augmented batches.

>>> from robustmaps.data import load
>>> digits = load("digits")
>>> digits.image_size, digits.num_classes, len(digits.test)
((8, 8), 10, 449)
"""

from robustmaps.data.augment import Augmentation, ResizedCrop
from robustmaps.data.batches import batches
from robustmaps.data.copies import occur_in
from robustmaps.data.corruptions import CorruptedImages, open_corruptions
from robustmaps.data.extra import load_extra
from robustmaps.data.known import KNOWN, KnownSet
from robustmaps.data.load import NotHere, describe, load, prepare
from robustmaps.data.placement import Placed, place
from robustmaps.data.sets import Dataset, Extra, ImageSet
from robustmaps.data.sources import forms
from robustmaps.data.sources.channels import REPEATED, TURNED_GREY

__all__ = [
    "KNOWN",
    "REPEATED",
    "TURNED_GREY",
    "Augmentation",
    "CorruptedImages",
    "Dataset",
    "Extra",
    "ImageSet",
    "KnownSet",
    "NotHere",
    "Placed",
    "ResizedCrop",
    "batches",
    "describe",
    "forms",
    "load",
    "load_extra",
    "occur_in",
    "open_corruptions",
    "place",
    "prepare",
]

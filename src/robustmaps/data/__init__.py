"""Layer 1: images, decoded once, split without leaks, and served in shuffled, augmented batches.

>>> from robustmaps.data import load
>>> digits = load("digits")
>>> digits.image_size, digits.num_classes, len(digits.test)
((8, 8), 10, 449)
"""

from robustmaps.data.augment import Augmentation
from robustmaps.data.batches import batches
from robustmaps.data.known import KNOWN, KnownSet
from robustmaps.data.load import describe, load, prepare
from robustmaps.data.sets import Dataset, ImageSet

__all__ = ["KNOWN", "Augmentation", "Dataset", "ImageSet", "KnownSet", "batches", "describe", "load", "prepare"]

"""The embedded default: scikit-learn's handwritten digits."""

from dataclasses import dataclass

import numpy as np

from robustmaps.data.source import UNSPLIT, Contents, Progress
from robustmaps.data.sources.arrays import array_blocks, numbered_classes
from robustmaps.data.sources.registry import SourceRow

_LEVELS = 16


@dataclass(frozen=True)
class Digits:
    """1,797 grey images of 8 x 8 pixels in 10 classes; their 17 levels 0..16 are stretched to 0..255."""

    name: str = "digits"

    def identity(self) -> None:
        """Nothing to cache: it comes with scikit-learn and is read in a few hundredths of a second."""

    def read(self, image_size: int | None, progress: Progress | None) -> Contents:
        """Read all images; there is no test split."""
        # Imported here, since scikit-learn takes longer to import than everything else to run.
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images[:, None] * (255 / _LEVELS)).astype(np.uint8)
        classes = numbered_classes(len(digits.target_names))
        return Contents("digits", array_blocks(UNSPLIT, images, digits.target, classes, image_size, progress), classes)


ROW = SourceRow(
    name="digits",
    summary="scikit-learn's handwritten digits",
    named=lambda spec: Digits() if spec == "digits" else None,
)

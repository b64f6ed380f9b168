"""The embedded default: scikit-learn's handwritten digits."""

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
        table = _table()
        images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / _LEVELS)).astype(np.uint8)
        labels, classes = table[:, -1].astype(np.int64), numbered_classes(10)
        return Contents("digits", array_blocks(UNSPLIT, images, labels, classes, image_size, progress), classes)


def _table() -> NDArray[np.float64]:
    """Pixels (1797, 64), from 0 to 16, and behind them the label, as scikit-learn keeps them in a file.

    It is read without scikit-learn, which takes longer to import than an evaluation of some digits.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target])


ROW = SourceRow(
    name="digits",
    summary="scikit-learn's handwritten digits",
    named=lambda spec: Digits() if spec == "digits" else None,
)

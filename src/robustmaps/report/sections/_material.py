"""The material for sections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from robustmaps.config import Split
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.evaluation import images_sha256
from robustmaps.networks import choose_images, load_data
from robustmaps.studies import Statistics

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Material:
    """The runs of a page or of a part of it.

    Attributes:
        study: their statistics.
        pictures: whether networks may be opened and attacked.
        device: device for the pictures.
        watcher: receives progress reports.
    """

    study: Statistics
    pictures: bool = True
    device: str = "auto"
    watcher: Watcher = ignore

    @cached_property
    def data(self) -> Dataset | None:
        """The data set of the best configuration; None if not available here."""
        try:
            return load_data(self.study.best.config.data)
        except (InputError, OSError):  # moved, or on an unreachable hub
            return None

    @cached_property
    def labels(self) -> tuple[NDArray[np.int64] | None, Sequence[str]]:
        """The labels (N,) of the evaluated images, None if not available, and the class names."""
        yardstick = self.study.yardstick
        if self.data is None or yardstick is None:
            return None, ()
        for split in get_args(Split):
            if yardstick.count <= len(getattr(self.data, split)):
                x, y = choose_images(self.data, split, yardstick.count)
                if images_sha256(x, y) == yardstick.images:
                    return y.numpy(), self.data.classes
        return None, ()

    def once(self, make: "Callable[[Material], T]") -> T:
        """The result of a function of this material, computed once and shared."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made

    @cached_property
    def _made(self) -> dict[Callable[..., Any], Any]:
        return {}

"""Training: one loop for every defence, with checkpoints and averaged weights."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.engine.errors import Interrupted
    from robustmaps.training._fit import FitResult, fit
    from robustmaps.training._forms import Forms, choose_forms
    from robustmaps.training._growth import Earlier, check_earlier
    from robustmaps.training._loop import Diverged
    from robustmaps.training._options import INCIDENTAL, TrainOptions
    from robustmaps.training._overfitting import CatastrophicOverfitting, robust_fall
    from robustmaps.training._run_folder import (
        BEFORE_ENLARGING,
        PROGRAM,
        RUN_WEIGHTS,
        RunFolder,
        best_epoch,
        enclosing_run,
        is_chosen,
        kept_epochs,
        other_weights,
    )
    from robustmaps.training._trainee import Trainee
    from robustmaps.training._weights import (
        DESCRIPTION,
        ENLARGED,
        Weights,
        enlargements,
        load_weights,
        read_weights,
        save_weights,
    )

__all__ = [
    "BEFORE_ENLARGING",
    "DESCRIPTION",
    "ENLARGED",
    "INCIDENTAL",
    "PROGRAM",
    "RUN_WEIGHTS",
    "CatastrophicOverfitting",
    "Diverged",
    "Earlier",
    "FitResult",
    "Forms",
    "Interrupted",
    "RunFolder",
    "TrainOptions",
    "Trainee",
    "Weights",
    "best_epoch",
    "check_earlier",
    "choose_forms",
    "enclosing_run",
    "enlargements",
    "fit",
    "is_chosen",
    "kept_epochs",
    "load_weights",
    "other_weights",
    "read_weights",
    "robust_fall",
    "save_weights",
]

__getattr__, __dir__ = lazy(__name__, __file__)

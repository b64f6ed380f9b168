"""Make convolutional classifiers more robust to adversarial examples by larger feature maps, and prove what it gained.

>>> import robustmaps
>>> data = robustmaps.data.load("digits")
>>> model = robustmaps.models.create("resnet8", in_channels=1, upsample=2, mean=data.mean, std=data.std)
>>> attack = robustmaps.attacks.PGD(eps=0.15, steps=5)
>>> options = robustmaps.TrainOptions(epochs=20, schedule="one-cycle")
>>> robustmaps.fit(model, data, robustmaps.defenses.AT(attack), options)  # doctest: +SKIP
>>> robustmaps.evaluate(model, *data.test.tensors(), attack).robust_accuracy  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from robustmaps._version import __version__
from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps import (
        analysis,
        attacks,
        data,
        defenses,
        engine,
        enlarging,
        evaluation,
        experiments,
        models,
        report,
        training,
    )
    from robustmaps.engine.errors import InputError
    from robustmaps.enlarging import Enlargement, EnlargeWarning, enlarge, plan
    from robustmaps.evaluation import Evaluation, compare, diagnose, evaluate
    from robustmaps.training import TrainOptions, fit

__all__ = [
    "EnlargeWarning",
    "Enlargement",
    "Evaluation",
    "InputError",
    "TrainOptions",
    "__version__",
    "analysis",
    "attacks",
    "compare",
    "data",
    "defenses",
    "diagnose",
    "engine",
    "enlarge",
    "enlarging",
    "evaluate",
    "evaluation",
    "experiments",
    "fit",
    "models",
    "plan",
    "report",
    "training",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "engine.errors": ["InputError"],
        "enlarging": ["EnlargeWarning", "Enlargement", "enlarge", "plan"],
        "evaluation": ["Evaluation", "compare", "diagnose", "evaluate"],
        "training": ["TrainOptions", "fit"],
    },
    modules=[
        *("analysis", "attacks", "data", "defenses", "engine", "enlarging", "evaluation", "experiments"),
        *("models", "report", "training"),
    ],
)

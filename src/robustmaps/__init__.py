"""Make convolutional classifiers more robust to adversarial examples with larger feature maps, and measure the gain.

>>> import robustmaps
>>> data = robustmaps.data.load("digits")
>>> model = robustmaps.models.create("resnet8", in_channels=1, upsample=2, mean=data.mean, std=data.std)
>>> attack = robustmaps.attacks.PGD(eps=0.15, steps=5)
>>> options = robustmaps.TrainOptions(epochs=20, schedule="one-cycle")
>>> robustmaps.fit(model, data, robustmaps.defenses.AT(attack), options)  # doctest: +SKIP
>>> robustmaps.evaluate(model, *data.test.tensors(), attack).robust_accuracy  # doctest: +SKIP

Most programs need only the names here: `load`, for a run, a file or any named network; `enlarge`, `plan`,
`Enlargement` and `EnlargeWarning`; `fit` and `TrainOptions`; `evaluate`, `compare`, `diagnose` and `Evaluation`;
`push_to_hub` and `from_pretrained`; and `InputError`, the error for any invalid input. The rest is in the packages,
lowest layer first:

- `engine`: devices, precision, the attack view, numbers, files.
- `tracing`: records of a forward pass of any network.
- `models`, `data`: the paper's networks; data sets.
- `attacks`, `enlarging`: gradient and query attacks; larger feature maps for any network.
- `defenses`, `analysis`: losses for robust training; receptive fields and perturbation gains.
- `evaluation`, `training`: verdicts per image; the training loop.
- `figures`: tables, plots and rasters.
- `config`, `networks`, `runs`, `studies`: a configuration, its network, one run, many runs.
- `report`: the report page on runs.
"""

from typing import TYPE_CHECKING

from robustmaps._version import __version__
from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps import (
        analysis,
        attacks,
        config,
        data,
        defenses,
        engine,
        enlarging,
        evaluation,
        figures,
        models,
        networks,
        report,
        runs,
        studies,
        tracing,
        training,
    )
    from robustmaps.engine.errors import InputError
    from robustmaps.enlarging import Enlargement, EnlargeWarning, enlarge, plan
    from robustmaps.evaluation import Evaluation, compare, diagnose, evaluate
    from robustmaps.runs import from_pretrained, load, push_to_hub
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
    "config",
    "data",
    "defenses",
    "diagnose",
    "engine",
    "enlarge",
    "enlarging",
    "evaluate",
    "evaluation",
    "figures",
    "fit",
    "from_pretrained",
    "load",
    "models",
    "networks",
    "plan",
    "push_to_hub",
    "report",
    "runs",
    "studies",
    "tracing",
    "training",
]

__getattr__, __dir__ = lazy(__name__, __file__)

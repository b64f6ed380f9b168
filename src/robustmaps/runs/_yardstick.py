"""The settings that comparable evaluations share: attacks, budget and images."""

import json
from dataclasses import dataclass, field

from robustmaps.engine.numbers import as_fraction
from robustmaps.evaluation import ALONE, Evaluation

_KINDS = {"train": "training"}
_NORMS = {"linf": "l_inf", "l2": "l_2", "l1": "l_1"}


@dataclass(frozen=True)
class Yardstick:
    """The attacks, budget and images that comparable evaluations share.

    Attributes:
        norm, eps: the budget.
        attacks: settings of the attacks, as JSON.
        images: hash of the images.
        count: number of images.
        names: names of the attacks.
        split: their split of the data set; None if not known.
        weights: which of a run's weights are evaluated, if not the best.
    """

    norm: str
    eps: float
    attacks: str
    images: str
    count: int
    names: tuple[str, ...]
    split: str | None = field(default=None, compare=False)
    weights: str | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Yardstick":
        """The yardstick of an evaluation."""
        return cls(
            evaluation.norm,
            evaluation.eps,
            json.dumps([dict(attack) for attack in evaluation.attacks], sort_keys=True),
            evaluation.images_sha256,
            len(evaluation.verdicts),
            tuple(str(attack["name"]) for attack in evaluation.attacks),
            evaluation.split,
            evaluation.weights,
        )

    @property
    def alone(self) -> bool:
        """Whether it is the worst case of attacks that each attacked all images."""
        return any(ALONE in attack for attack in json.loads(self.attacks))

    @property
    def short(self) -> str:
        """Attacks and budget, for axes."""
        worst = "worst case of " if self.alone else ""
        others = f", {self.weights} weights" if self.weights else ""
        return f"{worst}{' + '.join(self.names)}, {_NORMS[self.norm]} {as_fraction(self.eps)}{others}"

    @property
    def text(self) -> str:
        """Attacks, budget and images."""
        return f"{self.short}, {self.count:,} {self.kind}"

    @property
    def kind(self) -> str:
        """The kind of images, for sentences."""
        return f"{_KINDS.get(self.split, self.split)} images" if self.split else "images"

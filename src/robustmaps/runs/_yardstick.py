"""The settings that comparable evaluations share: attacks, budget and images."""

import json
from dataclasses import dataclass, field

from robustmaps.engine.numbers import as_fraction, norm_text
from robustmaps.evaluation import ALONE, Evaluation
from robustmaps.runs._attack_options import attack_label
from robustmaps.runs._attacks import same_values

_KINDS = {"train": "training"}


@dataclass(frozen=True)
class Yardstick:
    """The attacks, budget and images that comparable evaluations share.

    Attributes:
        norm, eps: the budget.
        attacks: settings of the attacks, as JSON.
        images: hash of the images.
        count: number of images.
        split: their split of the data set; None if not known.
        weights: which of a run's weights are evaluated, if not the best.
    """

    norm: str
    eps: float
    attacks: str
    images: str
    count: int
    split: str | None = field(default=None, compare=False)
    weights: str | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Yardstick":
        """The yardstick of an evaluation."""
        return cls(
            evaluation.norm,
            evaluation.eps,
            json.dumps(same_values(evaluation.attacks), sort_keys=True),
            evaluation.images_sha256,
            len(evaluation.verdicts),
            evaluation.split,
            evaluation.weights,
        )

    @property
    def alone(self) -> bool:
        """Whether it is the worst case of attacks that each attacked all images."""
        return any(ALONE in attack for attack in json.loads(self.attacks))

    @property
    def label(self) -> str:
        """Attacks, as on the command line, and weights, if not the best."""
        return f"{attack_label(self.norm, self.eps, self.attacks)}{self._of_weights}"

    @property
    def heading(self) -> str:
        """The same, with the names of attacks as papers write them."""
        return f"{attack_label(self.norm, self.eps, self.attacks, titled=True)}{self._of_weights}"

    @property
    def title(self) -> str:
        """The same beside columns of the attacks by themselves."""
        return f"worst case{self._of_weights}" if self.alone else self.heading

    @property
    def short(self) -> str:
        """Attacks and budget, for axes."""
        budget = f"{norm_text(self.norm)} {as_fraction(self.eps)}"
        return f"{attack_label(self.norm, self.eps, self.attacks, titled=True)}, {budget}{self._of_weights}"

    @property
    def _of_weights(self) -> str:
        return f", {self.weights} weights" if self.weights else ""

    @property
    def text(self) -> str:
        """Attacks, budget and images."""
        return f"{self.short}, {self.count:,} {self.kind}"

    @property
    def kind(self) -> str:
        """The kind of images, for sentences."""
        return f"{_KINDS.get(self.split, self.split)} images" if self.split else "images"

"""What makes evaluations comparable: the same attacks, budget and images."""

import json
from dataclasses import dataclass, field

from robustmaps.engine.numbers import as_fraction
from robustmaps.evaluation import Evaluation

_NORMS = {"linf": "l_inf", "l2": "l_2", "l1": "l_1"}


@dataclass(frozen=True)
class Yardstick:
    """What evaluations have in common that may be compared.

    Attributes:
        norm, eps: the budget.
        attacks: settings of the attacks, as JSON.
        images: hash of the images.
        count: how many images.
        names: of the attacks.
        split: of which images of the data set these are, None where that is not known.
    """

    norm: str
    eps: float
    attacks: str
    images: str
    count: int
    names: tuple[str, ...]
    split: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Yardstick":
        """That of an evaluation."""
        return cls(
            evaluation.norm,
            evaluation.eps,
            json.dumps([dict(attack) for attack in evaluation.attacks], sort_keys=True),
            evaluation.images_sha256,
            len(evaluation.verdicts),
            tuple(str(attack["name"]) for attack in evaluation.attacks),
            evaluation.split,
        )

    @property
    def short(self) -> str:
        """Attacks and budget, for axes."""
        return f"{' + '.join(self.names)}, {_NORMS[self.norm]} {as_fraction(self.eps)}"

    @property
    def text(self) -> str:
        """Attacks, budget and images."""
        return f"{self.short}, {self.count:,} {self.kind}"

    @property
    def kind(self) -> str:
        """What the images are, for sentences."""
        return f"{self.split} images" if self.split else "images"

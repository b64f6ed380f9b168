"""Counts of passes through a network, the measure of an attack's work that no machine changes. No PyTorch here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from robustmaps.engine.reading.declared import declared


@dataclass(frozen=True)
class Passes:
    """Images put through a network: an image that goes through ten times counts ten times.

    Attributes:
        forward: images whose logits were computed, also where only a changed window of their maps was.
        backward: images whose gradients were computed, beside the forward pass that each of them takes.
    """

    forward: int = 0
    backward: int = 0

    @classmethod
    def of(cls, stage: Mapping[str, Any]) -> "Passes | None":
        """Those of an attack, as recorded in an evaluation; None if they were not counted."""
        return declared(cls, stage["passes"], "stages.passes.") if "passes" in stage else None

    @classmethod
    def of_all(cls, stages: Sequence[Mapping[str, Any]]) -> "Passes | None":
        """Those of several attacks together; None if there are none, or some were not counted."""
        counts = [passes for stage in stages if (passes := cls.of(stage)) is not None]
        return sum(counts, cls()) if counts and len(counts) == len(stages) else None

    def __add__(self, other: "Passes") -> "Passes":
        """Both."""
        return Passes(self.forward + other.forward, self.backward + other.backward)

    def __sub__(self, other: "Passes") -> "Passes":
        """What was added since."""
        return Passes(self.forward - other.forward, self.backward - other.backward)

    def per_image(self, images: int) -> tuple[float, float]:
        """Mean numbers of forward and backward passes of that many images."""
        return self.forward / max(images, 1), self.backward / max(images, 1)

    def text(self, images: int) -> str:
        """The means over that many images, forward and backward.

        >>> Passes(250, 100).text(10)
        '25.0 + 10.0'
        """
        return " + ".join(f"{mean:,.1f}" for mean in self.per_image(images)) if images else ""

    def to_dict(self, images: int) -> dict[str, Any]:
        """For JSON: the counts, and their means over that many images."""
        means = dict(zip(("forward", "backward"), self.per_image(images), strict=True))
        return {"passes": asdict(self), "passes_per_image": means}

"""A batch to attack, and its results: plain values that processes send to each other."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from robustmaps.attacks import Attack
from robustmaps.engine.views.passes import Passes


@dataclass(frozen=True)
class Batch:
    """A batch to attack.

    Attributes:
        attack: the attack.
        position: its place in the order.
        rows: the samples.
        x: their images (B, C, H, W) in [0, 1], float32.
        y: their labels (B,).
        size: the batch size of the evaluation, which a last batch does not reach.
    """

    attack: Attack
    position: int
    rows: list[int]
    x: Tensor
    y: Tensor
    size: int


@dataclass(frozen=True)
class Attacked:
    """The results of a batch.

    Attributes:
        position: the attack's place in the order.
        rows: the samples.
        broken: whether the network misclassifies its image, of each.
        distances: how far its image is away, of each.
        undecided: whether the network had no answer to it, of each.
        sizes: its distances in all of `NORMS`, of each.
        images: those to keep, by index.
        passes: through the network.
        mended: gradients that were not finite.
        warnings: reasons to doubt the figures.
    """

    position: int
    rows: list[int]
    broken: list[bool]
    distances: list[float]
    undecided: list[bool]
    sizes: list[tuple[float, float, float]]
    images: dict[int, Tensor]
    passes: Passes
    mended: int
    warnings: tuple[str, ...] = ()


class Attackers(Protocol):
    """Who attacks batches."""

    def attacked(
        self, parts: Sequence[list[int]], batch: Callable[[list[int]], Batch], ahead: Callable[[float], None]
    ) -> Generator[Attacked]:
        """Attack batches, and yield the results in their order.

        Whatever an attack raises is raised in its turn, also that memory ran out: what comes after it is then dropped.

        Args:
            parts: the samples of each batch.
            batch: makes the batch of such samples.
            ahead: told now and then how many images are done beyond those that were yielded.
        """

"""What a defence is: a loss to train with."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.view import AttackView

Examples = TypeVar("Examples")


@dataclass(frozen=True)
class Loss:
    """What a defence made of one batch.

    Attributes:
        value: the scalar to minimise, differentiable with respect to the network's parameters.
        clean_correct: how many samples the network got right as they are, None where it did not see them.
        robust_correct: how many it got right under the training attack, None where there was none.
    """

    value: Tensor
    clean_correct: Tensor | None = None
    robust_correct: Tensor | None = None


@runtime_checkable
class Defense(Protocol):
    """A frozen value whose ``loss`` is minimised by the training loop."""

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def attack(self) -> Attack | None:
        """The attack made during training; None where there is none."""
        ...

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        targets: Tensor | None = None,
        view: AttackView | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """The training loss of a batch.

        Args:
            model: the network, in the mode it is trained in.
            x: images (N, C, H, W) in [0, 1].
            y: labels (N,), which the attack works against and accuracies are counted by.
            targets: probabilities (N, K) that cross-entropy compares with instead of ``y``, such as smoothed labels.
            view: what to attack; None attacks the network itself.
            generator: for random draws.
        """
        ...


class Minimax(ABC, Generic[Examples]):
    """A defence in two parts: adversarial examples, and a loss at them.

    Weight perturbations wrap the second part alone, since the examples are made once.
    """

    name: ClassVar[str]
    attack: Attack | None

    @abstractmethod
    def inner(self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Examples:
        """The inner maximisation: what the network is trained on instead of, or beside, ``x``."""

    def climbed(
        self, model: nn.Module, x: Tensor, examples: Examples, y: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """The loss that a perturbation of the weights climbs: that of the outer minimisation."""
        return self.outer(model, x, examples, y, targets).value

    @abstractmethod
    def outer(self, model: nn.Module, x: Tensor, examples: Examples, y: Tensor, targets: Tensor | None = None) -> Loss:
        """The outer minimisation: the loss at those examples."""

    def loss(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        targets: Tensor | None = None,
        view: AttackView | None = None,
        generator: torch.Generator | None = None,
    ) -> Loss:
        """The training loss of a batch; see `Defense.loss`."""
        return self.outer(model, x, self.inner(view or model, x, y, generator), y, targets)


@runtime_checkable
class ReplayingDefense(Defense, Protocol):
    """A defence that makes several steps of training on each batch, as free adversarial training does."""

    @property
    def replays(self) -> int:
        """Steps on each batch."""
        ...

    def replay(self, x: Tensor, carried: Tensor | None, step: Callable[[Tensor], None]) -> Tensor:
        """Train on a batch ``replays`` times; see `FreeAT.replay`."""
        ...

    def outer(self, model: nn.Module, x: Tensor, examples: Tensor, y: Tensor, targets: Tensor | None = None) -> Loss:
        """The loss of one of these steps."""
        ...


def count_correct(logits: Tensor, y: Tensor) -> Tensor:
    """How many rows have their largest logit at the label; a tensor, so that no device has to wait."""
    return (logits.detach().argmax(1) == y).sum()


def cross_entropy(logits: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Mean cross-entropy with the targets (N, K) where there are any, else with the labels (N,).

    A network may tell more classes than the data have; no target is any of those.
    """
    wider = 0 if targets is None else logits.shape[1] - targets.shape[1]
    return F.cross_entropy(logits.float(), y if targets is None else F.pad(targets, (0, wider)))


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)) of each sample, shape (N,); both sides are differentiated."""
    divergence = F.kl_div(
        logits.float().log_softmax(1), reference.float().log_softmax(1), reduction="none", log_target=True
    )
    return divergence.sum(1)

"""The interface of every defence: a loss to train with."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.attacks import kl_divergence as divergence
from robustmaps.engine.finite import is_right
from robustmaps.engine.view import AttackView

Examples = TypeVar("Examples")


@dataclass(frozen=True)
class Loss:
    """A defence's results for one batch.

    Attributes:
        value: the scalar to minimise, differentiable with respect to the network's parameters.
        clean_correct: correctly classified clean samples; None if the network did not see them.
        robust_correct: correctly classified samples under the training attack; None without an attack.
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
        """The training attack, if any."""
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
            y: labels (N,), for the attack and the accuracies.
            targets: probabilities (N, K), such as smoothed labels, that replace ``y`` in the cross-entropy.
            view: the view to attack; None for the network itself.
            generator: for random draws.
        """
        ...


class Minimax(ABC, Generic[Examples]):
    """A defence in two parts: adversarial examples, and a loss at them.

    Weight perturbations apply only to the second part, since the examples are made once.
    """

    name: ClassVar[str]
    attack: Attack | None

    @abstractmethod
    def inner(self, model: nn.Module | AttackView, x: Tensor, y: Tensor, generator: torch.Generator | None) -> Examples:
        """The inner maximisation: the examples to train on instead of, or in addition to, ``x``."""

    def climbed(
        self, model: nn.Module, x: Tensor, examples: Examples, y: Tensor, targets: Tensor | None = None
    ) -> Tensor:
        """The loss that weight perturbations maximise: by default that of the outer minimisation."""
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
    """A defence that makes several training steps on each batch, such as free adversarial training."""

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
    """The number of rows whose logits predict the label; a tensor, so that no device has to wait."""
    return is_right(logits.detach(), y).sum()


def cross_entropy(logits: Tensor, y: Tensor, targets: Tensor | None) -> Tensor:
    """Mean cross-entropy with the targets (N, K) if given, else with the labels (N,).

    If the network has more classes than the targets, the others get probability 0. What smoothed labels give to a class
    that the network masks with minus infinity is left out.
    """
    if targets is None:
        return F.cross_entropy(logits.float(), y)
    targets = F.pad(targets, (0, logits.shape[1] - targets.shape[1]))
    masked = (logits == -float("inf")) & (targets < targets.amax(1, keepdim=True))
    log_probabilities = logits.float().log_softmax(1).masked_fill(masked, 0.0)
    return -(log_probabilities * targets).sum() / len(logits)


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)) of each sample, shape (N,); both sides are differentiated."""
    return divergence(logits.float().log_softmax(1), reference.float().log_softmax(1))

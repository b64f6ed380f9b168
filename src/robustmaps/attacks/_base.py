"""The interface of every attack, and the checks of its input."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.view import AttackView

LATER = {"later": True}
"""Metadata of an attack's fields that are younger than its recorded settings: these leave them out where not given, so
that earlier evaluations are still of the same attack."""


@runtime_checkable
class Attack(Protocol):
    """A frozen value that is called on a batch.

    The call takes a network or a view of one, images ``x`` (N, C, H, W) in [0, 1] and labels ``y`` (N,), and returns
    images of the same shape in [0, 1], within ``eps`` of ``x`` in ``norm``. A network is used in evaluation mode and
    restored afterwards. Random draws come from ``generator``, or from PyTorch's global one.
    """

    @property
    def name(self) -> str:
        """The name on the command line."""
        ...

    @property
    def norm(self) -> str:
        """``linf``, ``l2`` or ``l1``."""
        ...

    @property
    def eps(self) -> float:
        """The radius, in units of images in [0, 1]."""
        ...

    def __call__(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images for ``x``."""
        ...


def check_batch(x: Tensor, y: Tensor) -> None:
    """Refuse images and labels that attacks can't use.

    Raises:
        InputError: images are not float (N, C, H, W), empty, NaN or outside [0, 1], or labels are not int64 (N,).
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise InputError(
            f"x has shape {tuple(x.shape)} and type {x.dtype}: expected float images (N, C, H, W) in [0, 1]"
        )
    if y.dim() != 1 or len(y) != len(x) or y.dtype != torch.int64:
        raise InputError(f"y has shape {tuple(y.shape)} and type {y.dtype}: expected int64 labels of shape ({len(x)},)")
    if len(y) and int(y.min()) < 0:
        raise InputError(f"y contains the label {int(y.min())}: expected labels of at least 0")
    if len(x) == 0:
        raise InputError("x contains no images: expected at least one")
    low, high = (float(bound) for bound in x.detach().aminmax())
    if not (low >= 0.0 and high <= 1.0):
        hint = "" if low != low else "; divide by 255" if high > 2 else "; normalisation belongs inside the model"
        raise InputError(f"x spans [{low:.4g}, {high:.4g}]: expected images in [0, 1]{hint}")


def check_labels(y: Tensor, num_classes: int) -> None:
    """Refuse labels outside the network's classes.

    Raises:
        InputError: a label is negative or not below ``num_classes``.
    """
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(f"labels span {low} to {high}: the network has {num_classes} classes, 0 to {num_classes - 1}")

"""Averaged weights."""

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn


class AveragedWeights:
    """An exponential moving average of a network's parameters and buffers.

    Batch-norm statistics are averaged with the weights, so the average can be used as it is. Early on, while there is
    little to average over, the decay is ``(1 + t) / (10 + t)``.

    Args:
        model: the network to follow.
        decay: how much of the old average each step keeps, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the present weights."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        # By tensor and not by name: a tensor that has two names must not be averaged twice.
        for average, present in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                average.lerp_(present, 1 - decay)
            else:
                average.copy_(present)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())

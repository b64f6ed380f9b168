"""Averaged weights."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import frozen_copy


class AveragedWeights:
    """A running average of a network's parameters and buffers.

    With a decay it is the exponential moving average over steps, including batch-norm statistics; in early steps the
    decay is ``(1 + t) / (10 + t)``. Without one it is the plain mean over epochs (stochastic weight averaging,
    arXiv 1803.05407), whose statistics differ too much to be averaged and are measured again, see `measure_statistics`.

    Args:
        model: the network to average.
        decay: share of the old average that each step keeps, in (0, 1); None for the plain mean.

    Raises:
        InputError: the network can't be copied.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        try:
            self.model = frozen_copy(model)
        except InputError as error:
            raise InputError(f"ema and swa need a network that can be copied: {error}") from error
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the current weights to the average."""
        kept = (
            self.steps / (1 + self.steps)
            if self._decay is None
            else min(self._decay, (1 + self.steps) / (10 + self.steps))
        )
        self.steps += 1
        # By tensor, not by name: a tensor with two names must not be averaged twice.
        for average, present in zip(_tensors(self.model), _tensors(model), strict=True):
            if average.is_floating_point():
                average.lerp_(present, 1 - kept)
            else:
                average.copy_(present)

    def moved(self, model: nn.Module) -> "AveragedWeights":
        """The same average as weights of another network, which has the same parameters and buffers."""
        other = AveragedWeights(model, self._decay)
        other.model.load_state_dict(self.model.state_dict())
        other.steps = self.steps
        return other


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())

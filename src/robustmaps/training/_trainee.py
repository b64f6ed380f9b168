"""The network in the form that training steps run."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from robustmaps.engine.device import Precision
from robustmaps.engine.view import require_compiler


class Trainee(nn.Module):
    """Runs a network channels-last, optionally under autocast and compiled, with its own parameters and modes.

    Args:
        network: the network to train.
        precision: ``bf16`` for autocast with float32 weights.
        compile: compile for batches of the usual size; others run eagerly, since each size needs a compilation.
        batch_size: the usual batch size.
    """

    def __init__(self, network: nn.Module, precision: Precision, compile: bool, batch_size: int) -> None:  # noqa: A002
        super().__init__()
        self.network = network
        self._bf16 = precision == "bf16"
        self._batch_size = batch_size
        self._full = network
        if compile:
            require_compiler()
            self._full = torch.compile(network, dynamic=False)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Float32 logits (N, K)."""
        x = x.contiguous(memory_format=torch.channels_last)
        network = self._full if len(x) == self._batch_size else self.network
        with torch.autocast(x.device.type, torch.bfloat16) if self._bf16 else nullcontext():
            logits: Tensor = network(x)
        return logits.float()

"""The network in the form that training steps run."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import (
    Caller,
    at_least_float32,
    logits_of,
    own_copy,
    parameter_dtype,
    trains_in_channels_last,
)
from robustmaps.engine.device import Precision
from robustmaps.engine.ranks.batch_norm import SharedStatistics
from robustmaps.engine.view import require_compiler
from robustmaps.engine.views.stages import Stage, checkpointed


class Trainee(Caller):
    """Runs a network, optionally channels-last, under autocast and compiled, with its own parameters and modes.

    Args:
        network: the network to train.
        precision: ``bf16`` for autocast with float32 weights.
        compile: compile for batches of the usual size; others run eagerly, since each size needs a compilation.
        batch_size: the usual batch size.
        channels_last: whether images are put in channels-last order, or else in the usual one.
        stages: those that run again in backward passes.
        shared: whether batch-norms in training mode take their statistics from the images of all ranks.

    Attributes:
        counted: whether this rank's images count there.
    """

    counted = True

    def __init__(
        self,
        network: nn.Module,
        precision: Precision,
        compile: bool,  # noqa: A002
        batch_size: int,
        *,
        channels_last: bool = True,
        stages: Sequence[Stage] = (),
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._channels_last = channels_last
        self._stages, self._shared = stages, shared
        self._bf16 = precision == "bf16"
        self._batch_size = batch_size
        self._full = network
        if compile:
            require_compiler()
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            # The compiler chooses the order of maps by itself; see `trains_in_channels_last`.
            kept = None if trains_in_channels_last(network, device) else {"layout_optimization": False}
            self._full = torch.compile(network, dynamic=False, options=kept)  # type: ignore[assignment, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), at least in float32."""
        own = own_copy(x, parameter_dtype(self.network), channels_last=self._channels_last)
        if not self._channels_last:  # images from files often are; see `trains_in_channels_last`
            own = own.contiguous()
        network = self._full if len(x) == self._batch_size else self.network
        autocast = torch.autocast(x.device.type, torch.bfloat16) if self._bf16 else nullcontext()
        statistics = SharedStatistics(counted=self.counted) if self._shared else nullcontext()
        with autocast, checkpointed(self.network, self._stages), statistics:
            result = network(own)
        return at_least_float32(logits_of(result, len(x)))

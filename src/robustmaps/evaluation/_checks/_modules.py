"""Networks with side effects: passes that change state or compute gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import network_logits


class WithGradients(nn.Module):
    """Wraps a network that computes gradients in its pass and fails if they are turned off."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), differentiable only if the caller has gradients turned on."""
        with torch.enable_grad():
            logits = network_logits(self.model, x)
        return logits if torch.is_grad_enabled() else logits.detach()


@contextmanager
def state_restored(model: nn.Module) -> Iterator[Callable[[], list[str]]]:
    """Restore parameters and buffers after the block; within it, the function yielded lists those that changed."""
    stores = [
        (f"{path}.{name}".lstrip("."), values, name, tensor, tensor.detach().clone())
        for path, module in model.named_modules()
        for values in (module._parameters, module._buffers)
        for name, tensor in values.items()
        if tensor is not None
    ]

    def changed() -> list[str]:
        # The stores of a scripted network have no method get.
        return [path for path, values, name, _, kept in stores if not _same(dict(values.items()).get(name), kept)]

    try:
        yield changed
    finally:
        with torch.no_grad():
            for _, values, name, tensor, kept in stores:
                if not torch.equal(tensor, kept):
                    tensor.copy_(kept)
                values[name] = tensor


def _same(now: Tensor | None, kept: Tensor) -> bool:
    return now is not None and now.shape == kept.shape and torch.equal(now.detach(), kept)

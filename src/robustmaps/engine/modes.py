"""Training and evaluation mode, module by module."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from robustmaps.engine.errors import InputError


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters require no gradients.

    Raises:
        InputError: the network can't be copied.
    """
    try:
        return copy.deepcopy(model).eval().requires_grad_(False)
    except (RuntimeError, TypeError, AttributeError) as error:  # what copy.deepcopy raises
        raise InputError(f"the network can't be copied ({error})") from error


@contextmanager
def modes_restored(model: nn.Module) -> Iterator[None]:
    """Restore every module's mode after the block, even after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within the block, passes in training mode leave the running statistics of normalisations unchanged."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    try:
        # Not copied back afterwards: autograd holds the running statistics until the backward pass.
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)


@contextmanager
def no_shortcuts() -> Iterator[None]:
    """Within the block, attention takes no fast path without gradients.

    So all passes make the same calls, and no operations are hidden from PyTorch's counter.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

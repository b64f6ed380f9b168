"""The last map of a network, taken from a pass in earnest."""

import copy

import torch
from torch import nn

from robustmaps.tracing._head import find_head
from robustmaps.tracing._trace import Recorder, trace


def last_map(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    head = find_head(trace(model, image))
    assert head is not None
    subject = copy.deepcopy(model).eval()
    recorder = Recorder(subject, image)
    with torch.no_grad(), recorder:
        subject(image)
    return next(t for t in recorder._alive if recorder.source(t) == head.map.source)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch-norm statistics and biases as of a trained network, so that a mistake shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.uniform_(-0.1, 0.1, generator=generator)
    return model.eval()

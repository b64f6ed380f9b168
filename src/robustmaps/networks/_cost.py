"""What an image costs a network."""

import copy

import torch
from torch import nn

from robustmaps import models
from robustmaps.data import Dataset


def image_cost(model: nn.Module, data: Dataset) -> models.Cost:
    """What one image costs the network, which is left as it is."""
    image = torch.zeros(1, data.in_channels, *data.image_size)
    try:
        return models.measure_cost(copy.deepcopy(model).to("meta"), image.to("meta"))  # nothing is computed
    except RuntimeError:  # a network that makes tensors on a device of its own
        return models.measure_cost(model, image.to(next(model.parameters()).device))

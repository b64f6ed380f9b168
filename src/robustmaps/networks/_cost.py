"""What an image costs a network."""

import copy
from contextlib import suppress

import torch
from torch import nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.device import device_of


def image_cost(model: nn.Module, data: Dataset) -> models.Cost:
    """What one image costs the network, which is left as it is."""
    image = torch.zeros(1, data.in_channels, *data.image_size)
    with suppress(Exception):  # such as tensors on a device of its own, members in a list, no copy, no such operation
        return models.measure_cost(copy.deepcopy(model).to("meta"), image.to("meta"))  # nothing is computed
    return models.measure_cost(model, image.to(device_of(model)))

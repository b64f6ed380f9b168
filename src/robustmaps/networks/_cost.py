"""What an image costs a network."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import nn

from robustmaps import models
from robustmaps.data import Dataset
from robustmaps.engine.device import device_of
from robustmaps.training import Earlier


def image_cost(model: nn.Module, data: Dataset) -> models.Cost:
    """What one image costs the network, which is left as it is."""
    image = torch.zeros(1, data.in_channels, *data.image_size)
    with suppress(Exception):  # such as tensors on a device of its own, members in a list, no copy, no such operation
        return models.measure_cost(copy.deepcopy(model).to("meta"), image.to("meta"))  # nothing is computed
    return models.measure_cost(model, image.to(device_of(model)))


def trained_cost(model: nn.Module, data: Dataset, earlier: Sequence[Earlier], epochs: int) -> models.Cost:
    """What one image costs the network, with the operations of all epochs where smaller ones were trained first."""
    cost = image_cost(model, data)
    if not earlier:
        return cost
    each = [image_cost(one.model, data).flops for one in earlier] + [cost.flops]
    return replace(cost, mean_flops=mean_over_epochs(each, [one.until for one in earlier], epochs))


def mean_over_epochs(each: Sequence[float], until: Sequence[int], epochs: int) -> float:
    """The mean over all epochs of what one costs.

    >>> mean_over_epochs([1.0, 4.0], [8], 10)
    1.6

    Args:
        each: the cost of an epoch of each network.
        until: the last epoch of each but the last one.
        epochs: of the whole run.
    """
    ends = [*until, epochs]
    return sum(cost * (b - a) for cost, a, b in zip(each, [0, *until], ends, strict=True)) / epochs

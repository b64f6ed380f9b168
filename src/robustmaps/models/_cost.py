"""The cost of a network: operations, parameters, memory for the backward pass, latency."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from robustmaps.engine.calling import call, own_copy, parameter_dtype
from robustmaps.engine.device import is_out_of_memory
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import saved_bytes
from robustmaps.engine.modes import check_initialised, check_values, evaluating
from robustmaps.engine.text import first_line
from robustmaps.models._maps import FinalPooling
from robustmaps.models._operations import count_flops

Measure = Literal["flops", "memory", "latency"]
"""What a budget can limit."""
_WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Cost:
    """The cost of a network for one image.

    Attributes:
        flops: floating-point operations of a forward pass, two per multiply-add, as ``torch.utils.flop_counter`` counts
            them; attention, recurrent layers, distances and Fourier transforms included, pointwise operations not.
        parameters: number of learned values, shared ones counted once.
        activation_bytes: memory saved for the backward pass of a training step by one more image in the batch, without
            the image itself. A training step's peak adds what does not grow with the batch (parameters, their
            gradients and the optimizer's state) and short-lived buffers.
        map_size: (H, W) of the feature map before the final pooling; None if no map is pooled or flattened.
        latency_s: median time of a forward pass in seconds; None if not measured.
        mean_flops: ``flops`` averaged over the epochs of training, of a network that was enlarged during it; None of
            any other.
    """

    flops: int
    parameters: int
    activation_bytes: int
    map_size: tuple[int, int] | None
    latency_s: float | None = None
    mean_flops: float | None = None

    def of(self, measure: Measure) -> float:
        """What a budget for that measure limits.

        Raises:
            InputError: the latency was not measured.
        """
        if measure == "latency" and self.latency_s is None:
            raise InputError("measure='latency': needs a network and an image on a real device, not on 'meta'")
        return {"flops": self.flops, "memory": self.activation_bytes, "latency": self.latency_s or 0.0}[measure]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; without ``mean_flops`` where that is None."""
        values = {**asdict(self), "map_size": None if self.map_size is None else list(self.map_size)}
        if self.mean_flops is None:
            del values["mean_flops"]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Cost":
        """Restore the result of `to_dict`."""
        size = values["map_size"]
        return Cost(**{**values, "map_size": None if size is None else tuple(size)})


def measure_cost(model: nn.Module, example: torch.Tensor, *, latency_runs: int = 0) -> Cost:
    """Measure the cost of one image in evaluation mode, without changing the model.

    Everything but the latency can also be measured on the ``meta`` device, where nothing is computed.

    Args:
        model: any network, on the example's device.
        example: images (N, C, H, W); only the first is used.
        latency_runs: forward passes to time; 0 for none.

    Raises:
        InputError: there is no image, a parameter has no shape or no values, the network raises on one image or two or
            where gradients are on, or latency is asked for on the ``meta`` device.
    """
    if example.ndim != 4 or not len(example):
        raise InputError(f"example of shape {tuple(example.shape)}: expected images (N, C, H, W), at least one")
    if latency_runs and example.is_meta:
        raise InputError(f"latency_runs={latency_runs}: nothing is computed on the meta device; expected 0")
    (check_initialised if example.is_meta else check_values)(model)
    image = example[:1].detach().clone()
    with _as_trained(model):
        flops, map_size = trace_forward(model, image)
        pair = image.repeat(2, 1, 1, 1)
        # The difference excludes what is saved once per batch, such as parameters and batch-norm statistics.
        activation_bytes = _saved_bytes(model, pair) - _saved_bytes(model, image)
        latency_s = _latency_s(model, image, latency_runs) if latency_runs else None
    return Cost(
        flops=flops,
        parameters=count_parameters(model),
        activation_bytes=activation_bytes,
        map_size=map_size,
        latency_s=latency_s,
    )


def count_parameters(model: nn.Module) -> int:
    """The number of learned values, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def trace_forward(model: nn.Module, image: torch.Tensor) -> tuple[int, tuple[int, int] | None]:
    """Operations of one forward pass, and (H, W) of the map before the final pooling."""
    with _refused(model, image), torch.no_grad(), count_flops() as counter, FinalPooling() as pooling:
        call(model, image)
    return counter.total, pooling.map_size


@contextmanager
def _as_trained(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients for all parameters within the block; restored afterwards."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with evaluating(model):
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _saved_bytes(model: nn.Module, images: torch.Tensor) -> int:
    """Bytes that a forward pass saves for the backward pass, without the images."""
    saved: list[int] = []
    with _refused(model, images, " with gradients, to measure the memory of a backward pass"), torch.enable_grad():
        own = own_copy(images.requires_grad_(), parameter_dtype(model))
        with saved_bytes(saved.append, own):
            model(own)
    return sum(saved)


@contextmanager
def _refused(model: nn.Module, images: torch.Tensor, how: str = "") -> Iterator[None]:
    """An error that names the network and the images, whatever the network raises within the block."""
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        name, shape = type(model).__name__, tuple(images.shape)
        raise InputError(f"{name} can't be run on images of shape {shape}{how}: {first_line(error)}") from error


def _latency_s(model: nn.Module, image: torch.Tensor, runs: int) -> float:
    def seconds() -> float:
        own = own_copy(image, parameter_dtype(model))
        start = time.perf_counter()
        model(own)
        if image.device.type != "cpu":
            torch.accelerator.synchronize(image.device)
        return time.perf_counter() - start

    with torch.no_grad():
        for _ in range(_WARM_UP_RUNS):
            seconds()
        return statistics.median(seconds() for _ in range(runs))

"""Logits and input gradients of a network, however it lets itself be differentiated."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import logits_of, own_copy, parameter_dtype
from robustmaps.engine.device import Precision, float32_products, is_out_of_memory
from robustmaps.engine.errors import InputError, NoGradientError
from robustmaps.engine.finite import finite_gradient
from robustmaps.engine.text import first_line
from robustmaps.engine.views.compiled import Compiled
from robustmaps.engine.views.passes import Passes

Objective = Callable[[Tensor], Tensor]
"""From logits (N, K) to one value per sample (N,)."""


@dataclass(frozen=True)
class ViewOptions:
    """How a view is made; each step is optional.

    Attributes:
        fold: fold batch-norms into the convolutions before them where that is exact.
        channels_last: keep images and weights in channels-last order.
        precision: ``fp32``, ``tf32`` (float32 with TF32 products on CUDA) or ``bf16`` (autocast, float32 logits).
        compile: use ``torch.compile``.
        cuda_graphs: replay compiled passes as CUDA graphs; no effect on other devices.
        stages: let the stages of the network run again in backward passes, to save memory; see `engine.views.stages`.

    Raises:
        InputError: ``cuda_graphs`` without ``compile``, or ``stages`` with it.
    """

    fold: bool = True
    channels_last: bool = True
    precision: Precision = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    stages: bool = False

    def __post_init__(self) -> None:
        if self.stages and self.compile:
            raise InputError("stages=True with compile: compiled passes decide what they keep; leave one out")
        if self.cuda_graphs and not self.compile:
            raise InputError("cuda_graphs=True without compile: only compiled views can be replayed; set compile=True")


class AttackView:
    """A network's logits in evaluation mode, differentiable only with respect to the images.

    Made by `AttackEngine.view` or `plain_view`.

    Args:
        forward: the network, or a function that runs it.
        options: how it was made.
        network: the network that ``forward`` runs, where that is a function.
        around: entered for every pass and its backward pass; the network is not used outside.
        instead: the view that takes over for good if this one raises where that one does not.

    Attributes:
        mended: how many images' gradients had NaN or infinite entries, which `finite_gradient` replaced.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Any],
        options: ViewOptions | None = None,
        network: nn.Module | None = None,
        around: Callable[[], AbstractContextManager[None]] | None = None,
        instead: "AttackView | None" = None,
    ) -> None:
        self._forward = forward
        self._network = forward if isinstance(forward, nn.Module) else network
        # Of the network as it is now: weights may be stored in bf16 later, for autocast.
        self._dtype = None if self._network is None else parameter_dtype(self._network)
        self._at_least_float32 = torch.float64 if self._dtype is torch.float64 else torch.float32
        options = options or AS_IT_IS
        self._channels_last = options.channels_last
        self._precision = options.precision
        self._fixed_batch = options.compile
        self._graphs = options.cuda_graphs
        self._around = around
        self._instead, self._replaced = instead, False
        self._largest = 0
        self._passes, self.mended = Passes(), 0
        self._way: _Way | None = None

    @property
    def module(self) -> nn.Module | None:
        """The network that runs; None if it is compiled, in reduced precision, not a module or used elsewhere too."""
        altered = self._precision != "fp32" or self._fixed_batch or self._around is not None or self._replaced
        return self._forward if isinstance(self._forward, nn.Module) and not altered else None

    @property
    def passes(self) -> Passes:
        """All passes so far: each image counts, without those that pad a batch, and whoever asks for its gradient."""
        return self._passes if self._instead is None else self._passes + self._instead.passes

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W) in [0, 1], in float32, or float64 from a network in float64.

        The network gets its own copy of the images, in the precision of its parameters.
        """
        if self._instead is None:
            return self._logits(x)
        if not self._replaced:
            try:
                return self._logits(x)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                logits = self._instead(x)  # raises what is not due to this view
                self._replaced = True
                warnings.warn(f"attacks run on the network itself from here on: {first_line(error)}", stacklevel=3)
                return logits
        return self._instead(x)

    def _logits(self, x: Tensor) -> Tensor:
        n = len(x)
        if self._fixed_batch:
            x = self._pad(x)
        own = own_copy(x, self._dtype, channels_last=self._channels_last)
        # Set in both cases: a caller's own autocast must not lower the precision of a float32 view.
        with (
            self._entered(),
            self._float32_products(x),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            result = self._forward(own)
        return self.counted(self.read(result, len(x))[:n])

    def counted(self, logits: Tensor) -> Tensor:
        """Logits (N, K) that were just computed, as a forward pass, and a backward pass for each use of their graph."""
        self._passes += Passes(forward=len(logits))
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self._passes += Passes(backward=len(gradient))

    def read(self, result: object, count: int | None = None) -> Tensor:
        """The logits (N, K) in what the network returned, as a view gives them, whatever their type there."""
        logits = logits_of(result, count).to(self._at_least_float32)
        # Attacks write into logits: the next replay of a graph does, too, and in inference mode nobody may.
        return logits.clone() if self._graphs or logits.is_inference() else logits

    def prepared(self, x: Tensor) -> Tensor:
        """Images, detached, in the precision that attacks compute in: that of the logits."""
        return x.detach().to(self._at_least_float32)

    def gradient(self, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), the objective (N,) and its finite gradient (N, C, H, W) at ``x``, all detached.

        Raises:
            NoGradientError: the network gives logits, but no gradient with respect to the images.
        """
        if self._replaced and self._instead is not None:
            before = self._instead.mended
            found = self._instead.gradient(x, objective)
            self.mended += self._instead.mended - before
            return found
        with outside_inference_mode(), torch.enable_grad(), self._float32_products(x), self._entered():
            x = x.detach().clone() if x.is_inference() else x.detach()
            logits, value, gradient = (self._way or _first_gradient)(self, x, objective)
        gradient, mended = finite_gradient(gradient)
        self.mended += mended
        return logits.detach(), value.detach(), gradient.clone() if self._graphs else gradient

    def _entered(self) -> AbstractContextManager[None]:
        return nullcontext() if self._around is None else self._around()

    def _float32_products(self, x: Tensor) -> AbstractContextManager[None]:
        return float32_products(x.device, tf32=self._precision != "fp32")

    def _pad(self, x: Tensor) -> Tensor:
        """Pad the batch to the largest seen, halved as often as it fits: few sizes mean few compilations.

        Samples don't affect each other in evaluation mode, so repeating some changes nothing.
        """
        n = len(x)
        self._largest = max(self._largest, n)
        size = self._largest
        while size // 2 >= max(n, 8):
            size //= 2
        return x if size == n else x[torch.arange(size, device=x.device) % n]


_Way = Callable[[AttackView, Tensor, Objective], tuple[Tensor, Tensor, Tensor]]
AS_IT_IS = ViewOptions(fold=False, channels_last=False)


def _of_the_images(view: AttackView, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the images alone."""
    logits, value = _objective(view, x.requires_grad_(), objective)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return logits, value, gradient


def _of_every_leaf(view: AttackView, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """For blocks that refuse `torch.autograd.grad`, such as reentrant checkpoints."""
    x = x.detach().requires_grad_()
    logits, value = _objective(view, x, objective)
    value.sum().backward()  # type: ignore[no-untyped-call]
    if x.grad is None:
        raise NoGradientError
    return logits, value, x.grad


def _with_parameters(way: _Way, view: AttackView, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """For blocks that differentiate their parameters in the backward pass; these are left without gradients."""
    parameters = [] if view._network is None else list(view._network.parameters())
    fixed = [p for p in parameters if not p.requires_grad and (p.is_floating_point() or p.is_complex())]
    kept = [p.grad for p in parameters]
    try:
        for parameter in fixed:
            parameter.requires_grad_(True)
        logits, value, gradient = way(view, x, objective)
        return logits.detach(), value.detach(), gradient
    finally:
        for parameter in fixed:
            parameter.requires_grad_(False)
        for parameter, grad in zip(parameters, kept, strict=True):
            parameter.grad = grad


_WAYS: tuple[_Way, ...] = (
    _of_the_images,
    _of_every_leaf,
    partial(_with_parameters, _of_the_images),
    partial(_with_parameters, _of_every_leaf),
)


def _first_gradient(view: AttackView, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Find the way in which a network can be differentiated."""
    failure: Exception = RuntimeError("no way to differentiate it")
    for way in _WAYS:
        try:
            found = way(view, x, objective)
        except InputError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            failure = error if way is _of_the_images else failure
        else:
            view._way = way
            return found
    with torch.no_grad():
        objective(view(x))  # raises what has nothing to do with gradients
    if isinstance(view._forward, Compiled) and view._forward.give_up(first_line(failure)):
        return _first_gradient(view, x, objective)
    raise NoGradientError(first_line(failure)) from failure


def _objective(view: AttackView, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    logits = view(x)
    if not logits.requires_grad:
        raise NoGradientError
    return logits, objective(logits)


def outside_inference_mode() -> AbstractContextManager[object]:
    """Attacks need gradients even if the caller has turned them off."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()

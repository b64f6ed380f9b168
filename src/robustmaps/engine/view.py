"""The attack view: a fast copy of a network that attacks run on.

An attack needs only the logits in evaluation mode and their gradient at the input. The network itself also computes
parameter gradients and batch-norms, in a memory layout and precision that suit training. A *view* is a copy with
batch-norms folded into convolutions where that is exact, in channels-last order, and on request in bfloat16 or
compiled. The network is never changed; its weights are copied over whenever a view is opened.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from robustmaps.engine.device import Precision, float32_products
from robustmaps.engine.errors import InputError
from robustmaps.engine.fingerprint import attributes
from robustmaps.engine.folding import FoldablePair, find_foldable, folded_parameters
from robustmaps.engine.modes import frozen_copy, modes_restored

Objective = Callable[[Tensor], Tensor]
"""From logits (N, K) to one value per sample (N,)."""

# Relative to the largest logit. Folding only changes rounding, by about 1e-6 in float32; an error near this bound means
# that the network does something that the traced pass did not show.
_FOLD_TOLERANCE = 1e-3
# A copy takes about as long as a step of training; some schedules change an attribute every epoch.
_MOST_RENEWALS = 500


@dataclass(frozen=True)
class ViewOptions:
    """How a view is made; each step is optional.

    Attributes:
        fold: fold batch-norms into the convolutions before them where that is exact.
        channels_last: keep images and weights in channels-last order.
        precision: ``fp32``, ``tf32`` (float32 with TF32 products on CUDA) or ``bf16`` (autocast, float32 logits).
        compile: use ``torch.compile``.
        cuda_graphs: replay compiled passes as CUDA graphs; no effect on other devices.

    Raises:
        InputError: ``cuda_graphs`` without ``compile``.
    """

    fold: bool = True
    channels_last: bool = True
    precision: Precision = "fp32"
    compile: bool = False
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if self.cuda_graphs and not self.compile:
            raise InputError("cuda_graphs=True without compile: only compiled views can be replayed; set compile=True")


class AttackView:
    """A network's logits in evaluation mode, differentiable only with respect to the images.

    Made by `AttackEngine.view` or `plain_view`.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], options: ViewOptions | None = None) -> None:
        self._forward = forward
        options = options or _AS_IT_IS
        self._channels_last = options.channels_last
        self._precision = options.precision
        self._fixed_batch = options.compile
        self._graphs = options.cuda_graphs
        self._largest = 0

    @property
    def module(self) -> nn.Module | None:
        """The network that runs; None if it is compiled, in reduced precision or not a module."""
        altered = self._precision != "fp32" or self._fixed_batch
        return self._forward if isinstance(self._forward, nn.Module) and not altered else None

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 logits (N, K) of images (N, C, H, W) in [0, 1]."""
        n = len(x)
        if self._fixed_batch:
            x = self._pad(x)
        if self._channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        # Set in both cases: a caller's own autocast must not lower the precision of a float32 view.
        with (
            self._float32_products(x),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            logits = self._forward(x)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f"the network returned {shape} for {len(x)} images; expected logits of shape ({len(x)}, classes)"
            )
        logits = logits[:n].float()
        # The next replay overwrites this memory.
        return logits.clone() if self._graphs else logits

    def gradient(self, x: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, K), the objective (N,) and its gradient (N, C, H, W) at ``x``, all detached."""
        with _outside_inference_mode(), torch.enable_grad(), self._float32_products(x):
            x = x.detach().clone() if x.is_inference() else x.detach()
            x.requires_grad_()
            logits = self(x)
            value = objective(logits)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return logits.detach(), value.detach(), gradient.clone() if self._graphs else gradient

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


_AS_IT_IS = ViewOptions(fold=False, channels_last=False)


class AttackEngine:
    """Makes views of one network as its weights change.

    Args:
        model: the network; it is never changed. If its structure or a plain attribute is another at the next view, or
            it has members in a plain list and their weights are, a new copy is made.
        options: how views are made.
    """

    def __init__(self, model: nn.Module, options: ViewOptions | None = None) -> None:
        self.model = model
        self.options = options or ViewOptions()
        self.folded: tuple[FoldablePair, ...] = ()
        self._shadow: nn.Module | None = None
        self._view: AttackView | None = None
        self._copyable = True
        self._attributes: list[object] = []
        self._renewed = 0
        if self.options.compile:
            require_compiler()

    @contextmanager
    def view(self, example: Tensor) -> Iterator[AttackView]:
        """Open a view with the network's current weights.

        Args:
            example: a few images (N, C, H, W) in [0, 1] on the network's device, to find what the first view can fold.
        """
        with _outside_inference_mode():
            if self._copyable:
                self._renew(example)
            if self._view is None or self._shadow is None:
                yield AttackView(self._as_it_is)
                return
            _copy_weights(self.model, self._shadow, self.folded)
            yield self._view

    def _renew(self, example: Tensor) -> None:
        """Make a new copy if the network is another than when it was copied, other than by its weights."""
        now = attributes(self.model)
        if self._view is not None and now == self._attributes:
            return
        if self._view is not None:
            self._renewed += 1
            self._view, self._shadow, self.folded = None, None, ()
        if self._renewed > _MOST_RENEWALS:
            warnings.warn(
                "attributes of the network change between passes, so attacks run on it directly: not folded, not in "
                "bf16, not compiled",
                stacklevel=4,
            )
            self._copyable = False
            return
        self._build(example)
        self._attributes = now

    def _as_it_is(self, x: Tensor) -> Tensor:
        """The network itself, frozen for this pass only: it may be trained between passes."""
        with plain_view(self.model) as view:
            return view(x)

    def _build(self, example: Tensor) -> None:
        try:
            shadow = frozen_copy(self.model)
        except InputError:
            warnings.warn(
                "the network can't be copied, so attacks run on it directly: not folded, not in bf16, not compiled",
                stacklevel=4,
            )
            self._copyable = False
            return
        few = example[:8].detach()
        if self.options.fold:
            pairs = tuple(find_foldable(shadow, few))
            if pairs and _folds_exactly(shadow, pairs, few):
                self.folded = pairs
                for pair in pairs:
                    _merge(shadow, pair)
        if self.options.channels_last:
            shadow = shadow.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.options.precision == "bf16":
            _store_in_bf16(shadow)
        self._shadow = shadow
        forward: Callable[[Tensor], Tensor] = shadow
        if self.options.compile:
            mode = "reduce-overhead" if self.options.cuda_graphs else "default"
            forward = torch.compile(shadow, dynamic=False, mode=mode)
        self._view = AttackView(forward, self.options)


@contextmanager
def plain_view(model: nn.Module | AttackView) -> Iterator[AttackView]:
    """A view that runs the network itself in float32 and evaluation mode; an `AttackView` passes through unchanged.

    The mode of every module and ``requires_grad`` of every parameter are restored, even after an exception.
    """
    if isinstance(model, AttackView):
        with _outside_inference_mode():
            yield model
        return
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with modes_restored(model), _outside_inference_mode():
            model.eval()
            yield AttackView(model)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def require_compiler() -> None:
    """Refuse ``compile`` where ``torch.compile`` can't work.

    Raises:
        InputError: there is neither a CUDA device nor a C++ compiler (``g++``, ``c++`` or ``clang++``).
    """
    if not torch.cuda.is_available() and not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        raise InputError("compile=True: needs a C++ compiler on the PATH; install g++ or leave compile out")


def _outside_inference_mode() -> AbstractContextManager[object]:
    """Attacks need gradients even if the caller has turned them off."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= _FOLD_TOLERANCE * b.abs().max().clamp(min=1.0))


@torch.no_grad()
def _folds_exactly(shadow: nn.Module, pairs: tuple[FoldablePair, ...], x: Tensor) -> bool:
    """Whether a copy with the pairs folded gives the same logits on ``x``.

    The check uses disturbed statistics: a fresh batch-norm is nearly the identity, which would hide mistakes until
    training has moved it.
    """
    unfolded, folded = frozen_copy(shadow), frozen_copy(shadow)
    for pair in pairs:
        _disturb(cast(nn.BatchNorm2d, unfolded.get_submodule(pair.norm)))
        _merge(folded, pair)
    _copy_weights(unfolded, folded, pairs)
    try:
        with torch.autocast(x.device.type, enabled=False), float32_products(x.device, tf32=False):
            return _close(folded(x), unfolded(x))
    except (AttributeError, TypeError):  # the network uses other parts of the batch-norm, or returns no tensor
        return False


def _disturb(norm: nn.BatchNorm2d) -> None:
    factor = torch.linspace(0.5, 1.5, norm.num_features, device=cast(Tensor, norm.running_mean).device)
    cast(Tensor, norm.running_mean).add_(cast(Tensor, norm.running_var).sqrt() * (factor - 0.75))
    cast(Tensor, norm.running_var).mul_(factor)
    if norm.affine:
        norm.weight.mul_(factor).add_(0.1)
        norm.bias.add_(0.1 * factor)


def _merge(shadow: nn.Module, pair: FoldablePair) -> None:
    """Give the convolution a bias and remove the batch-norm; `_copy_weights` sets the values."""
    convolution = _convolution(shadow, pair)
    if convolution.bias is None:
        convolution.bias = nn.Parameter(convolution.weight.new_zeros(convolution.out_channels), requires_grad=False)
    parent, _, name = pair.norm.rpartition(".")
    setattr(shadow.get_submodule(parent), name, nn.Identity())


def _convolution(model: nn.Module, pair: FoldablePair) -> nn.Conv2d:
    return cast(nn.Conv2d, model.get_submodule(pair.convolution))


def _store_in_bf16(shadow: nn.Module) -> None:
    """Convert the weights that autocast would otherwise convert in every pass."""
    for module in shadow.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)


@torch.no_grad()
def _copy_weights(model: nn.Module, shadow: nn.Module, folded: tuple[FoldablePair, ...]) -> None:
    """Bring the shadow's parameters and buffers up to date."""
    sources = dict(model.named_modules())
    merged: set[str] = set()
    for pair in folded:
        norm = cast(nn.BatchNorm2d, sources[pair.norm])
        weight, bias = folded_parameters(_convolution(model, pair), norm)
        target = _convolution(shadow, pair)
        target.weight.copy_(weight)
        cast(Tensor, target.bias).copy_(bias)
        merged.update((pair.convolution, pair.norm))
    for path, module in shadow.named_modules():
        if path in merged:
            continue
        source = sources[path]
        for values, originals in ((module._parameters, source._parameters), (module._buffers, source._buffers)):
            for name, value in values.items():
                original = originals[name]
                if value is not None and original is not None:
                    value.copy_(original)

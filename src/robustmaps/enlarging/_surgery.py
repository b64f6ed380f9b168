"""Surgery: change how some calls of a network run, while weights and names stay the same.

If an attribute suffices (the stride of an ``nn.Conv2d``), it is changed. Other calls are intercepted: the smallest
module around them gets a subclass of its own class whose ``forward`` runs under a mode that replaces them. So
functional calls and shared pools can be changed too, nothing is wrapped, and paths, state dicts, ``isinstance`` and
attributes stay as they were.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustmaps.enlarging._activation import Activating, activate
from robustmaps.enlarging._positions import Fitting
from robustmaps.enlarging._relax import Change
from robustmaps.enlarging._replacements import Relaxed, Replacement
from robustmaps.models import ACTIVATIONS, Activation, align_corners
from robustmaps.tracing import Call, Trace, function_name

_LAYERS = "_enlarge_layers"
_UPSAMPLE = "_enlarge_upsample"
_ACTIVATION = "_enlarge_activation"


@dataclass(frozen=True)
class Rewrite:
    """Replace the ``number``-th call of ``function`` within one run of a module."""

    function: str
    number: int
    replacement: Replacement

    def __str__(self) -> str:
        return f"{self.function}[{self.number}] as {self.replacement}"


@dataclass(frozen=True)
class Upsampling:
    """Enlarges images by a factor before the network sees them."""

    factor: float
    mode: str

    def __str__(self) -> str:
        return f"images upsampled by {self.factor:g} ({self.mode})"

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, C, factor * H, factor * W)."""
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=align_corners(self.mode))


@dataclass(frozen=True)
class Layer:
    """The rewrites of one module.

    Attributes:
        rewrites: the rewrites of calls within the module.
        counts: calls of each rewritten function in one run of the module.
    """

    rewrites: tuple[Rewrite, ...]
    counts: tuple[tuple[str, int], ...]


def operate(
    model: nn.Module, trace: Trace, changes: Iterable[Change], upsampling: Upsampling | None, fitting: Fitting
) -> nn.Module:
    """Apply changes to a network in place, and return it.

    Args:
        model: a copy that may be changed.
        trace: the original network's trace.
        changes: at most one per call.
        upsampling: upsampling of the images; None for none.
        fitting: what else the network needs for larger maps.
    """
    fitting.apply(model)
    rewrites = []
    for change in changes:
        if not (_runs_once(trace, change.call) and _set_attributes(model, change)):
            rewrites.append(change)
    for path, layer in _scopes(trace, rewrites).items():
        module = model.get_submodule(path)
        _subclass(module)
        setattr(module, _LAYERS, (*getattr(module, _LAYERS, ()), layer))
    if upsampling is not None:
        _subclass(model)
        setattr(model, _UPSAMPLE, (upsampling, *getattr(model, _UPSAMPLE, ())))
    return model


def replace_relus(model: nn.Module, calls: list[Call], activation: Activation) -> None:
    """Let a network compute another activation wherever it computes a ReLU, in place.

    Args:
        model: a copy that may be changed.
        calls: the calls of ReLU in the original network's pass.
        activation: what takes their place.
    """
    if activate(model, calls, activation):
        _subclass(model)
        setattr(model, _ACTIVATION, activation)


class _Rewriting(TorchFunctionMode):
    """While active, counts calls by function and replaces some."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._replacements = {(r.function, r.number): r.replacement for r in layer.rewrites}
        self._expected = dict(layer.counts)
        self._count = dict.fromkeys(self._expected, 0)

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function or its replacement."""
        name = function_name(func)
        if name not in self._expected:
            return func(*args, **(kwargs or {}))
        replacement = self._replacements.get((name, self._count[name]))
        self._count[name] += 1
        return func(*args, **(kwargs or {})) if replacement is None else replacement(func, args, kwargs or {})

    def check(self, module: nn.Module) -> None:
        """Refuse a run with other calls than the traced one, since the wrong ones may have been replaced."""
        if self._count != self._expected:
            raise RuntimeError(
                f"{type(module).__name__} made {self._count} calls, but {self._expected} when it was enlarged; "
                "expected the same number of calls in every pass, also in training mode"
            )


@cache
def _enlarged_class(base: type[nn.Module]) -> type[nn.Module]:
    """A subclass that runs under its instance's rewrites."""

    @wraps(base.forward)  # exporters read the signature
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        for upsampling in getattr(self, _UPSAMPLE, ()):
            args, kwargs = _on_images(upsampling, args, kwargs)
        modes = [_Rewriting(layer) for layer in reversed(getattr(self, _LAYERS, ()))]
        activation: Activation | None = getattr(self, _ACTIVATION, None)
        activating = [] if activation is None else [Activating(activation)]
        with ExitStack() as stack:
            for mode in (*activating, *modes):
                stack.enter_context(mode)
            result = base.forward(self, *args, **kwargs)
        for mode in modes:
            mode.check(self)
        return result

    def reduce(self: nn.Module, _: object) -> tuple[Any, ...]:
        return _blank, (base,), self.__dict__.copy()

    def extra_repr(self: nn.Module) -> str:
        changes = [
            *getattr(self, _UPSAMPLE, ()),
            *(rewrite for layer in getattr(self, _LAYERS, ()) for rewrite in layer.rewrites),
            *(f"relu as {ACTIVATIONS[name]}" for name in [getattr(self, _ACTIVATION, None)] if name is not None),
        ]
        return ", ".join(filter(None, [base.extra_repr(self), *map(str, changes)]))

    methods = {"forward": forward, "__reduce_ex__": reduce, "extra_repr": extra_repr}
    body = {**methods, "__module__": base.__module__, "__doc__": base.__doc__, "_enlarge_base": base}
    return type(f"Enlarged{base.__name__}", (base,), body)


def _blank(base: type[nn.Module]) -> nn.Module:
    """An empty instance, which unpickling and copying fill with state."""
    cls = _enlarged_class(base)  # type: ignore[arg-type]
    return cls.__new__(cls)


def _subclass(module: nn.Module) -> None:
    if not hasattr(type(module), "_enlarge_base"):
        module.__class__ = _enlarged_class(type(module))  # type: ignore[arg-type]


def _on_images(
    upsampling: Upsampling, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a network, with the images (the first tensor (N, C, H, W)) enlarged."""
    done = False

    def enlarge(value: Any) -> Any:
        nonlocal done
        if done or not (isinstance(value, Tensor) and value.ndim == 4):
            return value
        done = True
        return upsampling(value)

    return tuple(map(enlarge, args)), {name: enlarge(value) for name, value in kwargs.items()}


def _runs_once(trace: Trace, call: Call) -> bool:
    return bool(call.frames) and trace.runs[call.path] == 1


def _set_attributes(model: nn.Module, change: Change) -> bool:
    """Change the attributes of the module that made the call, if they can express the change; return whether."""
    relaxed, module = change.replacement, model.get_submodule(change.call.path)
    if not isinstance(relaxed, Relaxed) or not relaxed.is_symmetric():
        return False
    new = relaxed.new_window
    # Exact classes only: a subclass may use its attributes elsewhere.
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        module.stride, module.padding, module.dilation = new.stride, new.lead, new.dilation
        return True
    # PyTorch refuses padding of more than half a kernel, whatever its dilation.
    if type(module) is nn.MaxPool2d and all(2 * new.lead[axis] <= new.kernel[axis] for axis in (0, 1)):
        module.stride, module.padding, module.dilation = new.stride, new.lead, new.dilation
        return True
    if type(module) is nn.AvgPool2d and new.dilation == (1, 1):
        module.stride, module.padding = new.stride, new.lead
        return True
    return False


def _scopes(trace: Trace, changes: Iterable[Change]) -> dict[str, Layer]:
    """The rewrites of each module that needs any, by its path.

    The module is the innermost one around the call that runs once per pass, so that counting identifies calls. No
    chosen module is inside another, so that an outer mode never counts a replacement's own calls.
    """
    scope_of = {change.call: _scope(trace, change.call) for change in changes}
    scopes = set(scope_of.values())
    outermost = {s for s in scopes if not any(s != t and _inside(s, t) for t in scopes)}
    layers: dict[str, list[Rewrite]] = {}
    for change in changes:
        scope = next(s for s in outermost if _inside(scope_of[change.call], s))
        number = _count(trace.log[: change.call.position], change.call.name, scope)
        layers.setdefault(scope, []).append(Rewrite(change.call.name, number, change.replacement))
    return {
        scope: Layer(
            tuple(rewrites),
            tuple((name, _count(trace.log, name, scope)) for name in sorted({r.function for r in rewrites})),
        )
        for scope, rewrites in layers.items()
    }


def _count(log: Iterable[tuple[str, tuple[str, ...]]], function: str, scope: str) -> int:
    return sum(name == function and scope in frames for name, frames in log)


def _scope(trace: Trace, call: Call) -> str:
    return next(path for path in reversed(call.frames) if trace.runs[path] == 1)


def _inside(path: str, outer: str) -> bool:
    return outer in ("", path) or path.startswith(outer + ".")

"""Another activation in place of ReLU: SiLU, x times the logistic function of x (arXiv 1702.03118)."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustmaps.engine.errors import InputError, unknown
from robustmaps.models import ACTIVATIONS, Activation
from robustmaps.tracing import Call, Trace, function_name

RELU = ("relu", "relu_")
_OTHERS = frozenset(
    [
        *("relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh"),
        *("hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "threshold", "clamp", "clamp_min"),
    ]
)
_FUNCTIONS: dict[Activation, Callable[..., Tensor]] = {"silu": F.silu}
_MODULES: dict[Activation, type[nn.Module]] = {"silu": nn.SiLU}


def check_activation(activation: str | None) -> None:
    """Refuse an unknown activation."""
    if activation is not None and activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)


def find_relus(trace: Trace, network: str, activation: Activation) -> list[Call]:
    """The calls of ReLU in a pass, whatever module or function makes them.

    Args:
        trace: the network's trace.
        network: its name, for people.
        activation: what is to take their place.

    Raises:
        InputError: there is none; the message lists the network's other activations.
    """
    found = [call for call in trace.calls if call.name in RELU]
    if not found:
        counts = Counter(name for call in trace.calls if (name := call.name.rstrip("_")) in _OTHERS)
        listing = ", ".join(f"{name} ({count})" for name, count in counts.most_common()) or "none that is known"
        raise InputError(
            f"activation={activation!r}: {network} has no ReLU to replace; its activations: {listing}; expected a "
            "network that calls relu; ReLU6, leaky and other variants stay as they are"
        )
    return found


def activate(model: nn.Module, calls: list[Call], activation: Activation) -> bool:
    """Change every module that is a plain ``nn.ReLU`` in place, also those that run in training alone.

    Args:
        model: a copy that may be changed.
        calls: the calls of ReLU in the original network's pass.
        activation: what takes their place.

    Returns:
        Whether others make some of these calls, so that the network must run under `Activating`.
    """
    others = any(type(model.get_submodule(call.path)) is not nn.ReLU for call in calls)
    for module in list(model.modules()):
        if type(module) is nn.ReLU:  # a subclass may compute something else
            # Both have the attribute `inplace` and nothing else, and whoever holds the module gets the change.
            module.__class__ = _MODULES[activation]  # type: ignore[assignment]
    return others


class Activating(TorchFunctionMode):
    """While active, every call of ReLU, in place or not, is one of another activation."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self._function = _FUNCTIONS[activation]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function, or the activation."""
        kwargs = kwargs or {}
        name = function_name(func)
        if name not in RELU:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        inplace = name == "relu_" or (args[1] if len(args) > 1 else kwargs.get("inplace", False))
        return self._function(cast(Tensor, x), inplace=inplace)

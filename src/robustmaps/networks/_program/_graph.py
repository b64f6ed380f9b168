"""A network's operations in order, as plain values that can be written and read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from robustmaps.engine.errors import InputError
from robustmaps.networks._program._operations import MAKERS, operation

FORMAT = 1
_MOST_NODES = 20_000
_KINDS = {"dtype": torch.dtype, "layout": torch.layout, "memory_format": torch.memory_format}


@dataclass(frozen=True)
class Result:
    """The value of a step: 0 for the images, ``k`` for the step with that number."""

    step: int


@dataclass(frozen=True)
class Named:
    """A tensor of the network, by its name."""

    name: str


@dataclass(frozen=True)
class Here:
    """The device that the images are on."""


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        name: as `operation` takes it.
        args, kwargs: plain values, constants of PyTorch such as types, and `Result`, `Named` and `Here`.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @cached_property
    def function(self) -> Callable[..., Any]:
        """What it calls."""
        return operation(self.name)


@dataclass(frozen=True)
class Graph:
    """What a network computes, without its weights.

    Attributes:
        spec: the network's name, for people.
        kind: the name of its class, with which its weights are hashed.
        image: shape (C, H, W) of the images, which is fixed.
        modules: paths of its modules that hold tensors, in their order.
        parameters, buffers: names of its tensors in their order; the first name of a tensor that has several.
        constants: names of the tensors that its weights do not contain: buffers that are not saved, and others.
        aliases: the other names, each with the first one.
        steps: the operations in order.
        output: the step whose result are the logits.
    """

    spec: str
    kind: str
    image: tuple[int, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    constants: tuple[str, ...]
    aliases: Mapping[str, str]
    steps: tuple[Step, ...]
    output: int

    def __deepcopy__(self, memo: object) -> "Graph":
        """Itself, since nothing in it changes."""
        return self

    @cached_property
    def last_use(self) -> dict[int, list[int]]:
        """Per step, the results that no later one needs."""
        last = {0: 0}
        for number, step in enumerate(self.steps, 1):
            for used in results_in((step.args, step.kwargs)):
                last[used] = number
            last.setdefault(number, number)
        free: dict[int, list[int]] = {}
        for used, number in last.items():
            if used != self.output:
                free.setdefault(number, []).append(used)
        return free

    def to_plain(self) -> dict[str, Any]:
        """Plain values, which `from_plain` takes."""
        steps = [[s.name, _plain(s.args), {k: _plain(v) for k, v in s.kwargs.items()}] for s in self.steps]
        names = ("spec", "kind", "image", "modules", "parameters", "buffers", "constants", "aliases", "output")
        return {"format": FORMAT, **{name: _listed(getattr(self, name)) for name in names}, "steps": steps}

    @staticmethod
    def from_plain(values: Mapping[str, Any]) -> "Graph":
        """The graph, with everything checked that running it relies on.

        Raises:
            InputError: a program may not have one of its operations, or it is of a later format.
            KeyError, TypeError, ValueError: nothing that `to_plain` made.
        """
        if values["format"] != FORMAT:
            raise InputError(f"a program of format {values['format']!r}; this version reads {FORMAT}")
        if len(values["steps"]) > _MOST_NODES:
            raise ValueError(f"{len(values['steps'])} steps; expected up to {_MOST_NODES}")
        steps = tuple(
            Step(
                str(name), tuple(_value(arg) for arg in args), _placed(name, {k: _value(v) for k, v in kwargs.items()})
            )
            for name, args, kwargs in values["steps"]
        )
        tuples = {name: _texts(values[name]) for name in ("modules", "parameters", "buffers", "constants")}
        aliases = {str(k): str(v) for k, v in values["aliases"].items()}
        image = tuple(int(side) for side in values["image"])
        graph = Graph(
            str(values["spec"]), str(values["kind"]), image, **tuples, aliases=aliases, steps=steps,
            output=int(values["output"]),
        )  # fmt: skip
        graph._check()
        return graph

    def _check(self) -> None:
        known = {*self.parameters, *self.buffers, *self.constants}
        for number, step in enumerate(self.steps, 1):
            _ = step.function
            if any(not 0 <= used < number for used in results_in((step.args, step.kwargs))):
                raise ValueError(f"step {number} uses a result that is not there yet")
            if missing := {*named_in((step.args, step.kwargs))} - known:
                raise ValueError(f"step {number} uses {sorted(missing)[0]!r}, which the network does not have")
        if len(self.image) != 3 or not 0 <= self.output <= len(self.steps):
            raise ValueError("no image or no logits")


def results_in(values: Any) -> list[int]:
    """The steps whose results are among the values."""
    return [leaf.step for leaf in _leaves(values) if isinstance(leaf, Result)]


def named_in(values: Any) -> list[str]:
    """The names of the network's tensors among the values."""
    return [leaf.name for leaf in _leaves(values) if isinstance(leaf, Named)]


def replaced(value: Any, put: Callable[[Any], Any]) -> Any:
    """The value with everything that is not a list, tuple or mapping replaced."""
    if isinstance(value, list | tuple):
        return type(value)(replaced(one, put) for one in value)
    if isinstance(value, Mapping):
        return {key: replaced(one, put) for key, one in value.items()}
    return put(value)


def _leaves(values: Any) -> list[Any]:
    found: list[Any] = []
    replaced(values, found.append)
    return found


def _placed(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """With the images' device for what makes tensors, so that it makes shapes alone where those have no more."""
    if name.partition(".")[0] in MAKERS:
        kwargs.setdefault("device", Here())
    if not isinstance(kwargs.get("device"), Here | None):
        raise ValueError(f"{name}: a device other than that of the images")
    return kwargs


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a name that is no text")
    return tuple(values)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Result):
        return {"result": value.step}
    if isinstance(value, Named):
        return {"tensor": value.name}
    if isinstance(value, Here):
        return {"device": "of the images"}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    for name, kind in _KINDS.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"an operation takes a value of type {type(value).__name__}")


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inner),) = plain.items()
    if kind == "result":
        return Result(int(inner))
    if kind == "tensor":
        return Named(str(inner))
    if kind == "device":
        return Here()
    if kind == "float" and inner in ("inf", "-inf", "nan"):
        return float(inner)
    if kind in _KINDS and isinstance(found := getattr(torch, str(inner), None), _KINDS[kind]):
        return found
    raise ValueError(f"{str(plain)[:60]}: no value of an operation")

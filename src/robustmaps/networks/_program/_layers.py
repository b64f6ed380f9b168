"""Convolutions with their batch-norms in a program, as the layers that the fast form of attacks recognises."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from robustmaps.networks._program._graph import Graph, Named, Result, Step, named_in, results_in

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Layer:
    """A step that is the pass of a layer.

    Attributes:
        path: the layer's path.
        module: the layer, whose parameters and buffers have no values of their own yet.
    """

    path: str
    module: nn.Module


def find_layers(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[int, Layer]:
    """The layers by the number of their step: convolutions whose result goes into a batch-norm alone, and those.

    Only those whose tensors no other step uses, and which have no others: such a layer has the same names, in the same
    order, as the part of the network that it was made from.
    """
    uses = Counter(used for step in graph.steps for used in results_in((step.args, step.kwargs)))
    own = Counter(name for step in graph.steps for name in named_in((step.args, step.kwargs)))
    found: dict[int, Layer] = {}
    for number, step in enumerate(graph.steps, 1):
        before = step.args[0].step if step.args and isinstance(step.args[0], Result) else 0
        if before == 0 or uses[before] != 1 or before == graph.output:
            continue
        convolution, norm = _convolution(graph.steps[before - 1], tensors), _norm(step, tensors)
        if convolution is None or norm is None:
            continue
        if _is_whole(convolution, graph, own) and _is_whole(norm, graph, own):
            found |= {before: convolution, number: norm}
    return found


_DEFAULTS: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
"""The arguments of a convolution that may be left out."""


def _convolution(step: Step, tensors: Mapping[str, Tensor]) -> Layer | None:
    if step.name != "conv2d.default" or step.kwargs:
        return None
    match [*step.args, *_DEFAULTS[len(step.args) :]]:
        case [
            Result(),
            Named(weight),
            bias,
            [int(), int()] as stride,
            [int(), int()] as padding,
            dilation,
            int(groups),
        ]:
            pass
        case _:
            return None
    path, shape = weight.rpartition(".")[0], tensors[weight].shape
    if len(shape) != 4 or 0 in shape or groups < 1 or shape[0] % groups or not _named(path, weight=weight, bias=bias):
        return None
    module = nn.Conv2d(
        shape[1] * groups, shape[0], (shape[2], shape[3]), stride, padding, dilation, groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    return Layer(path, module)


def _norm(step: Step, tensors: Mapping[str, Tensor]) -> Layer | None:
    if step.name != "batch_norm.default" or step.kwargs:
        return None
    match step.args:
        case (Result(), weight, bias, Named(mean), Named(var), False, _, float(eps), _):
            pass
        case _:
            return None
    path, affine = mean.rpartition(".")[0], weight is not None
    if affine != (bias is not None) or not _named(path, weight=weight, bias=bias, running_mean=mean, running_var=var):
        return None
    return Layer(path, nn.BatchNorm2d(len(tensors[mean].flatten()), eps, affine=affine, device="meta"))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(each, int) for each in value)


def _named(path: str, **names: Any) -> bool:
    """Whether tensors have the names that they have in a layer at a path."""
    given = {last: name.name if isinstance(name, Named) else name for last, name in names.items()}
    return bool(path) and all(name is None or name == f"{path}.{last}" for last, name in given.items())


def _is_whole(layer: Layer, graph: Graph, own: Counter[str]) -> bool:
    """Whether the layer's tensors are all that the program has at its path, in the same order, for this step alone."""
    start = f"{layer.path}."
    here = [
        [name for name in names if name.startswith(start)]
        for names in (graph.parameters, graph.buffers, graph.constants, graph.aliases, graph.modules)
    ]
    parameters = [start + name for name, _ in layer.module.named_parameters()]
    buffers = [start + name for name, _ in layer.module.named_buffers()]
    used = all(own[name] == (not name.endswith(_COUNTER)) for name in (*parameters, *buffers))
    return (
        used and here == [parameters, buffers, [], [], []] and not {*parameters, *buffers} & {*graph.aliases.values()}
    )

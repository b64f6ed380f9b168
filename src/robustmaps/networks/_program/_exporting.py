"""From a network to its program, by `torch.export`, and the trial that both compute the same."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, InputSpec

from robustmaps.engine.calling import Caller, logits_of, network_logits, parameter_dtype
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import evaluating, frozen_copy, move
from robustmaps.engine.text import first_line
from robustmaps.evaluation import Identity, agree
from robustmaps.networks._program._graph import Graph, Here, Named, Result, Step, replaced
from robustmaps.networks._program._module import Program
from robustmaps.networks._program._operations import name_of

_IMAGES, _SEED = (1, 2, 5), 1729
_CHECKS = ("aten._assert_tensor_metadata.default", "aten._assert_scalar.default")
"""Which compute nothing."""


class _Logits(Caller):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self.network(x))


def export_program(model: nn.Module, shape: Sequence[int], spec: str) -> tuple[Graph, dict[str, Tensor]]:
    """The program of a network, tried: it computes the same logits and gradients.

    Args:
        model: a network, which is left as it is.
        shape: (C, H, W) of the images.
        spec: its name, for people.

    Returns:
        The program, and the tensors that are not among the network's weights.

    Raises:
        InputError: it has none, with the reason.
    """
    network = frozen_copy(model)
    move(network, torch.device("cpu"))
    graph, constants = _exported(network, tuple(shape), spec)
    state = {name: value.detach() for name, value in network.state_dict().items()}
    graph = Graph.from_plain(graph.to_plain())  # as it will be read
    check_program(Program(graph, {**state, **constants}, "on trial"), network, shape)
    return graph, constants


def check_program(program: Program, network: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a program that does not compute what the network does.

    Raises:
        InputError: logits for any number of images, or gradients, differ.
    """
    images = torch.rand(max(_IMAGES), *shape, generator=torch.Generator().manual_seed(_SEED))
    for count in _IMAGES:
        with torch.no_grad(), evaluating(network):
            expected, found = (network_logits(each, images[:count]) for each in (network, program))
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise InputError(f"its exported program computes other logits for {count} images")
    theirs, ours = (Identity.of(each, shape).computes for each in (network, program))
    if isinstance(theirs, str):
        raise InputError("it computes something else each time")
    if not agree(theirs, ours):
        raise InputError("its exported program has other gradients")


def _exported(network: nn.Module, shape: tuple[int, ...], spec: str) -> tuple[Graph, dict[str, Tensor]]:
    modules = [path for path, module in network.named_modules(remove_duplicate=False) if _has_tensors(module)]
    parameters = dict(network.named_parameters())
    buffers = dict(network.named_buffers())
    aliases = _aliases(network, {id(value): name for name, value in (*parameters.items(), *buffers.items())})
    state = network.state_dict()
    if extra := sorted({*state} - {*parameters, *buffers, *aliases}):
        raise InputError(f"its weights have {extra[0]!r}, which is neither a parameter nor a buffer")
    exported = _export(network, shape)
    constants = {name: value for name, value in buffers.items() if name not in state}
    known, image = {}, None
    for entry in exported.graph_signature.input_specs:
        if entry.kind is InputKind.USER_INPUT:
            image = entry.arg.name
        else:
            known[entry.arg.name] = Named(_name(entry, aliases))
            if entry.kind is InputKind.CONSTANT_TENSOR:
                constants[str(entry.target)] = exported.constants[str(entry.target)]
    steps, results = _steps(exported.graph, known, str(image))
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    (logits,) = output.args[0]
    names = (tuple(modules), tuple(parameters), tuple(buffers), tuple(constants))
    made = Graph(spec, type(network).__name__, shape, *names, aliases, tuple(steps), results[logits].step)
    return made, {name: value.detach().clone() for name, value in constants.items()}


def _export(network: nn.Module, shape: tuple[int, ...]) -> Any:
    example = torch.rand(2, *shape, dtype=parameter_dtype(network) or torch.float32)
    with _silent():
        try:
            count = torch.export.Dim("images", min=1)
            return torch.export.export(_Logits(network), (example,), dynamic_shapes=({0: count},), strict=False)
        except Exception as error:  # of many types, for whatever a network of somebody else does
            if "specialized it to be a constant" in str(error):
                raise InputError(
                    "it takes the number of images as a plain number, as len(x) does; x.shape[0] is followed"
                ) from error
            raise InputError(f"torch.export can't follow it ({first_line(error)})") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Within the block, PyTorch neither warns, logs nor prints: whoever asked gets the reason in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in (*module.parameters(), *module.buffers()))


def _aliases(network: nn.Module, first: Mapping[int, str]) -> dict[str, str]:
    """The names of tensors that have another one, with that."""
    named = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    return {name: first[id(value)] for name, value in named if first[id(value)] != name}


def _name(entry: InputSpec, aliases: Mapping[str, str]) -> str:
    name = str(entry.target).removeprefix("network.")
    if entry.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
        raise InputError(f"it uses {name}, which is no tensor")
    return aliases.get(name, name) if entry.kind is not InputKind.CONSTANT_TENSOR else str(entry.target)


def _steps(graph: fx.Graph, known: Mapping[str, Named], image: str) -> tuple[list[Step], dict[fx.Node, Result]]:
    steps: list[Step] = []
    results: dict[fx.Node, Result] = {}
    places: dict[str, Any] = dict(known)

    def value(leaf: Any) -> Any:
        if isinstance(leaf, fx.Node):
            return places[leaf.name]
        return Here() if isinstance(leaf, torch.device) else leaf

    for node in graph.nodes:
        if node.op == "placeholder" and node.name == image:
            places[node.name] = results[node] = Result(0)
        elif node.op == "get_attr":
            raise InputError(f"it computes a part in a context of its own ({node.target}), such as torch.no_grad()")
        elif node.op == "call_function" and str(node.target) not in _CHECKS:
            args, kwargs = replaced(tuple(node.args), value), replaced(dict(node.kwargs), value)
            steps.append(Step(name_of(node.target), args, kwargs))
            places[node.name] = results[node] = Result(len(steps))
    return steps, results

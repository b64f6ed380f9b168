"""A program as a network: PyTorch's operations one after the other, with the weights of a run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.engine.errors import InputError
from robustmaps.networks._program._graph import Graph, Here, Named, Result, replaced
from robustmaps.networks._program._layers import find_layers

_MOST_VALUES = 1 << 26
"""Of one result for one image: 256 MiB, far above those of networks for ImageNet."""
_BATCHES = (1, 1000)


class Program(nn.Module):
    """A network from its program, for evaluation: from images (N, C, H, W) of one size to logits (N, classes).

    Its tensors have the names and the order that they have in the network that it was made from.

    Args:
        graph: the operations.
        tensors: parameters, buffers and constants by name, all of them.
        why: why it takes the place of the network itself, for errors.

    Raises:
        InputError: the tensors are not those of the program, or an operation would need too much memory.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], why: str) -> None:
        super().__init__()
        self._graph, self._why = graph, why
        self._paths: dict[int, str] = {}
        self._place_tensors(tensors)
        self.train(False)
        self._check_sizes()

    @property
    def stands_for(self) -> str:
        """The name of the class of the network that it was made from, for `evaluation.weights_sha256`."""
        return self._graph.kind

    @property
    def unchangeable(self) -> str:
        """Why it can't be enlarged or trained, for `engine.modes.check_changeable`."""
        return (
            f"opened from its program ({self._why}), whose operations and sizes are fixed, so that it can be evaluated "
            f"but not enlarged or trained; for that, {self._graph.spec} itself is needed"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes).

        Raises:
            InputError: images of another size, or it is in training mode.
        """
        if self.training:
            raise InputError(self.unchangeable)
        if tuple(x.shape[1:]) != self._graph.image:
            raise InputError(f"images of shape {tuple(x.shape[1:])}: this program takes {self._graph.image}")
        return self._run(x)

    def _run(self, x: Tensor, most_values: int | None = None) -> Tensor:
        graph, values = self._graph, [x]
        tensors = self._by_name()

        def put(leaf: Any) -> Any:
            if isinstance(leaf, Result):
                return values[leaf.step]
            if isinstance(leaf, Named):
                tensor = tensors[leaf.name]
                return tensor if tensor.device == x.device else tensor.to(x.device)
            return x.device if isinstance(leaf, Here) else leaf

        for number, step in enumerate(graph.steps, 1):
            if most_values is None and number in self._paths:  # looked up each time, since copies may change layers
                result = self.get_submodule(self._paths[number])(values[step.args[0].step])
            else:
                result = step.function(*replaced(step.args, put), **replaced(step.kwargs, put))
            if most_values is not None and isinstance(result, Tensor) and result.numel() > most_values:
                raise InputError(f"step {number} ({step.name}) makes {result.numel():,} values of {len(x)} images")
            values.append(result)
            for used in graph.last_use.get(number, ()):
                values[used] = None  # type: ignore[call-overload]
        return values[graph.output]

    def _by_name(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers()), **self._constants}

    def _place_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        graph = self._graph
        saved = {*graph.parameters, *graph.buffers, *graph.aliases}
        if unknown := sorted({*saved, *graph.constants} ^ {*tensors}):
            raise InputError(f"weights and program are not of one network: only one of them has {unknown[0]!r}")
        # Tensors that belong to no module are not registered, since they would be hashed with the weights.
        self._constants = {name: tensors[name] for name in graph.constants if name not in graph.buffers}
        placed: dict[str, Any] = {}
        try:
            layers = find_layers(graph, tensors)
            self._paths = {number: layer.path for number, layer in layers.items()}
            modules = {layer.path: layer.module for layer in layers.values()}
            for path in graph.modules:
                self._module(path, modules)
            for name in graph.parameters:
                value = tensors[name].clone()
                placed[name] = nn.Parameter(value, requires_grad=value.is_floating_point() or value.is_complex())
                self._holder(name).register_parameter(name.rpartition(".")[2], placed[name])
            for name in graph.buffers:
                placed[name] = tensors[name].clone()
                holder, kept = self._holder(name), name not in graph.constants
                holder.register_buffer(name.rpartition(".")[2], placed[name], persistent=kept)
            for alias, name in graph.aliases.items():
                holder, last = self._holder(alias), alias.rpartition(".")[2]
                if isinstance(placed[name], nn.Parameter):
                    holder.register_parameter(last, placed[name])
                else:
                    holder.register_buffer(last, placed[name], persistent=name not in graph.constants)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"its tensors can't be placed ({error})") from error

    def _holder(self, name: str) -> nn.Module:
        return self._module(name.rpartition(".")[0])

    def _module(self, path: str, made: Mapping[str, nn.Module] | None = None) -> nn.Module:
        """The module at a path; those on the way that are not there yet only hold tensors, but for those made."""
        module: nn.Module = self
        at = ""
        for name in path.split(".") if path else ():
            at = f"{at}.{name}" if at else name
            if name not in module._modules:
                module.add_module(name, (made or {}).get(at) or nn.Module())
            module = module.get_submodule(name)
        return module

    @torch.no_grad()
    def _check_sizes(self) -> None:
        """Compute shapes alone, since a file may ask for any size."""
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)
        for count in _BATCHES:
            self._run(torch.empty(count, *self._graph.image, dtype=dtype, device="meta"), _MOST_VALUES * count)

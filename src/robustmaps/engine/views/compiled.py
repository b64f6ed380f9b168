"""A compiled network that may turn out not to be the network."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.engine.calling import logits_of, own_copy, parameter_dtype
from robustmaps.engine.device import Precision, is_out_of_memory
from robustmaps.engine.text import first_line
from robustmaps.engine.views.shadow import Sample


class Compiled:
    """A compiled network; the network itself where compiling fails or gives something else."""

    def __init__(self, module: nn.Module, precision: Precision, *, cuda_graphs: bool) -> None:
        mode = "reduce-overhead" if cuda_graphs else "default"
        self._module = module
        self._compiled: Any = torch.compile(module, dynamic=False, mode=mode)
        self._precision = precision
        self._compared = False

    def __call__(self, x: Tensor) -> Any:
        """What the network returns for images (N, C, H, W)."""
        if self._compiled is None:
            return self._module(x)
        kept = None if self._compared else x.detach().clone()
        try:
            result = self._compiled(x)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            result = self._module(own_copy(x))  # raises what has nothing to do with compiling
            self.give_up(first_line(error))
            return result
        if kept is not None:
            self._compared = True
            with torch.no_grad():
                expected, found = (Sample(logits_of(given).detach(), None) for given in (self._module(kept), result))
            problem = expected.difference(found, self._precision, parameter_dtype(self._module))
            if problem is not None:
                self.give_up(problem)
                return self._module(own_copy(x))
        return result

    def give_up(self, obstacle: str) -> bool:
        """Run the network itself from now on; whether it was compiled until now."""
        compiled, self._compiled = self._compiled is not None, None
        if compiled:
            warnings.warn(f"attacks run without compilation: {obstacle}", stacklevel=6)
        return compiled

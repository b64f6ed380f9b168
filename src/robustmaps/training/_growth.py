"""A network that grows while it is trained: smaller ones with the same weights are trained first."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from robustmaps.engine.errors import InputError


@dataclass(frozen=True, eq=False)
class Earlier:
    """A network that is trained first; the next one goes on with its weights and its optimizer's state.

    Attributes:
        model: has the parameters and buffers of the network that is trained in the end, by name and shape.
        until: its last epoch, counted from 1 over the whole run.
    """

    model: nn.Module
    until: int


def check_earlier(model: nn.Module, earlier: Sequence[Earlier], epochs: int) -> None:
    """Refuse networks that can't be trained one after the other.

    Raises:
        InputError: the last epochs don't ascend, or leave none to the network itself; or weights differ in name or
            shape.
    """
    last = [one.until for one in earlier]
    if any(a >= b for a, b in zip([0, *last], [*last, epochs], strict=True)):
        raise InputError(
            f"earlier networks until epochs {', '.join(map(str, last))} of {epochs}: expected ascending epochs that "
            "leave at least one to each network"
        )
    expected = _shapes(model)
    for one in earlier:
        found = _shapes(one.model)
        apart = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        if apart:
            raise InputError(
                f"earlier network until epoch {one.until}: {apart[0]} is {_shape(found.get(apart[0]))} there and "
                f"{_shape(expected.get(apart[0]))} in the network that goes on with it; expected the same weights"
            )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def measure_statistics(model: nn.Module, passes: Iterable[Callable[[nn.Module], object]]) -> None:
    """Set the batch-norm statistics to their mean over some passes, each called with the network in training mode."""
    update_bn(passes, _Passes(model))


class _Passes(nn.Module):
    """Lets `update_bn` run passes instead of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, one: Callable[[nn.Module], object]) -> object:
        return one(self.model)

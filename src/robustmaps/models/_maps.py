"""The size of the feature map before the final pooling, observed in a forward pass."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

_REDUCTIONS = (torch.ops.aten.mean.dim, torch.ops.aten.sum.dim_IntList, torch.ops.aten.amax.default)
_ADAPTIVE = (torch.ops.aten._adaptive_avg_pool2d.default, torch.ops.aten.adaptive_max_pool2d.default)
_WINDOWS = (torch.ops.aten.avg_pool2d.default,)
# Operations whose result is a map; behind a reshape four dimensions may as well be (N, tokens, heads, width).
_MAKERS = ("convolution", "pool", "upsample", "pad", "pixel_", "grid_sampler")
_RESHAPES = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


class FinalPooling(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, records the size (H, W) of the last map (N, C, H, W) that is pooled over all its pixels.

    It watches operations, not modules, so it works for any network, including one that pools with ``x.mean((2, 3))``.
    If no map is pooled, the last flattened one counts. Squeeze-and-excitation blocks pool too, but earlier. Tensors of
    attention, such as (N, heads, tokens, width), are no maps: a map has a size that a convolution, a pool or a
    resampling has made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pooled: tuple[int, int] | None = None
        self._flattened: tuple[int, int] | None = None
        self._sizes: set[tuple[int, int]] = set()

    @property
    def map_size(self) -> tuple[int, int] | None:
        """(H, W) of the final map so far; None if no map was pooled or flattened."""
        return self._pooled or self._flattened

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and record its input's size if it pools or flattens a map."""
        out = func(*args, **(kwargs or {}))
        x = args[0] if args else None
        self._note(func, x, out)
        if isinstance(x, torch.Tensor) and x.ndim == 4 and (x.shape[2], x.shape[3]) in self._sizes:
            dims = args[1] if func in _REDUCTIONS and len(args) > 1 else None
            over_map = {dim % 4 for dim in dims or ()} == {2, 3}
            if over_map or func in _ADAPTIVE or (func in _WINDOWS and out.shape[2:].numel() == 1):
                self._pooled = (x.shape[2], x.shape[3])
            elif func in _RESHAPES and out.ndim == 2 and len(out) == len(x):
                self._flattened = (x.shape[2], x.shape[3])
        return out

    def _note(self, func: Callable[..., Any], x: Any, out: Any) -> None:
        """Remember the size of a map that an operation made, cropped, or pooled by reshaping."""
        first = out[0] if isinstance(out, tuple) and out else out
        if not isinstance(first, torch.Tensor) or first.ndim != 4 or not isinstance(x, torch.Tensor):
            return
        made = any(maker in str(func) for maker in _MAKERS)
        cropped = func == torch.ops.aten.slice.Tensor and x.ndim == 4 and (x.shape[2], x.shape[3]) in self._sizes
        if made or cropped or (func in _REDUCTIONS and x.ndim == 6):
            self._sizes.add((first.shape[2], first.shape[3]))


def dry_run(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Run a model on images of that shape without computing values or changing the model.

    Raises:
        RuntimeError: the model can't take that shape.
    """
    state = dict(chain(model.named_parameters(), model.named_buffers()))
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    with torch.no_grad():
        functional_call(model, shapes, (torch.empty(shape, device="meta"),))


def smallest_side_px(model: nn.Module, channels: int, limit_px: int = 1024) -> int | None:
    """The side length of the smallest square image that the model can take; None if above the limit."""

    def fits(side_px: int) -> bool:
        try:
            # Two images: batch-norm in training mode refuses a single image whose map has one pixel.
            dry_run(model, (2, channels, side_px, side_px))
        except RuntimeError:
            return False
        return True

    if not fits(limit_px):
        return None
    return 1 + bisect_left(range(1, limit_px), True, key=fits)

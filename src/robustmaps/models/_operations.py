"""The operations of a pass: PyTorch's formulas, and those for operations that PyTorch leaves out.

Matrix products in any form count, two operations per multiply-add; so do Fourier transforms and factorisations.
Pointwise operations, pools, interpolation and look-ups don't.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from robustmaps.engine.modes import no_shortcuts


def _recurrent(x: Tensor, weights: Sequence[Tensor]) -> int:
    """Every weight matrix of a recurrent layer, applied to every element of its sequences (..., features)."""
    return 2 * (x.numel() // x.shape[-1]) * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _trilinear(args: Sequence[Any]) -> int:
    """The product of three tensors, expanded at the given dimensions and summed over others, one sum at a time."""
    shapes = []
    for tensor, dims in zip(args[:3], args[3:6], strict=True):
        shape = list(tensor.shape)
        for dim in sorted(dims):
            shape.insert(dim, 1)
        shapes.append(shape)
    whole: list[int] = [max(sizes) for sizes in zip(*shapes, strict=True)]
    first = whole[args[6][0]] if args[6] else 1
    products: int = math.prod(whole)
    return 2 * products + 2 * products // first


def _fourier(transformed: Tensor, dims: Sequence[int], *, real: bool) -> int:
    """5 n log2 n for n complex values, the customary count of a fast transform; half for real ones."""
    length = math.prod(transformed.shape[dim] for dim in dims)
    return round(5 * transformed.numel() * math.log2(max(length, 1)) / (2 if real else 1))


def _cubes(matrices: Tensor) -> float:
    """The cubed side of square matrices (..., n, n), summed over them."""
    return float(matrices.numel() * matrices.shape[-1])


_aten = torch.ops.aten

_FORMULAS: dict[Any, Callable[[Sequence[Any], Any], float]] = {
    # Recurrent layers that run as a single operation, on a CPU and on CUDA.
    _aten.mkldnn_rnn_layer: lambda args, out: _recurrent(args[0], args[1:3]),  # noqa: ARG005
    _aten._cudnn_rnn: lambda args, out: _recurrent(args[0], args[1]),  # noqa: ARG005
    _aten.miopen_rnn: lambda args, out: _recurrent(args[0], args[1]),  # noqa: ARG005
    # Products of vectors, matrices and higher orders.
    _aten.dot: lambda args, out: 2 * args[0].numel(),  # noqa: ARG005
    _aten.vdot: lambda args, out: 2 * args[0].numel(),  # noqa: ARG005
    _aten.mv: lambda args, out: 2 * args[0].numel(),  # noqa: ARG005
    _aten.addmv: lambda args, out: 2 * args[1].numel(),  # noqa: ARG005
    _aten.addr: lambda args, out: 2 * out.numel(),  # noqa: ARG005
    _aten.addbmm: lambda args, out: 2 * args[1].numel() * args[2].shape[-1],  # noqa: ARG005
    _aten._int_mm: lambda args, out: 2 * args[0].numel() * args[1].shape[-1],  # noqa: ARG005
    _aten._trilinear: lambda args, out: _trilinear(args),  # noqa: ARG005
    _aten.conv_tbc: lambda args, out: 2 * out.numel() * args[1].shape[0] * args[1].shape[1],
    # Distances: a difference, its power and a sum per component, counted like a product.
    _aten._cdist_forward: lambda args, out: 2 * out.numel() * args[0].shape[-1],
    _aten._euclidean_dist: lambda args, out: 2 * out.numel() * args[0].shape[-1],
    _aten._pdist_forward: lambda args, out: 2 * out.numel() * args[0].shape[-1],
    # Fourier transforms, by their longer side.
    _aten._fft_c2c: lambda args, out: _fourier(out, args[1], real=False),
    _aten._fft_r2c: lambda args, out: _fourier(args[0], args[1], real=True),  # noqa: ARG005
    _aten._fft_c2r: lambda args, out: _fourier(out, args[1], real=True),
    # Factorisations (Golub and Van Loan, Matrix Computations).
    _aten.linalg_inv_ex: lambda args, out: 2 * _cubes(args[0]),  # noqa: ARG005
    _aten.linalg_lu_factor_ex: lambda args, out: 2 / 3 * _cubes(args[0]),  # noqa: ARG005
    _aten.linalg_cholesky_ex: lambda args, out: 1 / 3 * _cubes(args[0]),  # noqa: ARG005
    _aten._linalg_solve_ex: lambda args, out: 2 / 3 * _cubes(args[0]) + 2 * args[1].numel() * args[0].shape[-1],  # noqa: ARG005
    _aten._linalg_det: lambda args, out: 2 / 3 * _cubes(args[0]),  # noqa: ARG005
    _aten.linalg_solve_triangular: lambda args, out: args[1].numel() * args[0].shape[-1],  # noqa: ARG005
    _aten._linalg_eigh: lambda args, out: 9 * _cubes(args[0]),  # noqa: ARG005
    _aten._linalg_svd: lambda args, out: 6 * args[0].numel() * max(args[0].shape[-2:]),  # noqa: ARG005
    _aten.linalg_qr: lambda args, out: 2 * args[0].numel() * min(args[0].shape[-2:]),  # noqa: ARG005
}


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by PyTorch's formulas and those above.

    PyTorch's own `FlopCounterMode` also tracks modules, which fails under `torch.autograd.grad`.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it."""
        kwargs = kwargs or {}
        formula, ours = flop_registry.get(func._overloadpacket), _FORMULAS.get(func._overloadpacket)
        if formula is None and ours is None:
            with self:  # an operation composed of others, as in inference mode
                out = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if out is NotImplemented else out
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        elif ours is not None:
            self.total += round(ours(args, out))
        return out


@contextmanager
def count_flops() -> Iterator[FlopCounter]:
    """Count operations within the block, with attention as plain matrix products.

    PyTorch's formulas miss the fused attention kernels on a CPU and the fast path of `nn.MultiheadAttention`, including
    its projections.
    """
    with no_shortcuts(), sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
        yield counter

"""A relaxed or spread operation holds the values of the plain one, for windows of every kind."""

import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustmaps.enlarging._replacements import AveragedTo, Relaxed, Spread, WholeMap
from robustmaps.tracing._windows import Window


@st.composite
def cases(draw: st.DrawFn) -> tuple[Window, int, int, int, int]:
    """A window, the factor of its stride, the spacing of pixels, the map's size, and what the spread map lacks."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    factor = draw(st.integers(1, 3))
    stride = factor * draw(st.integers(1, 2))
    padding = draw(st.integers(0, min(kernel) // 2))
    spacing = draw(st.integers(1, 3))
    window = Window(kernel, (stride, stride), (padding, padding), (padding, padding), ceil_mode=draw(st.booleans()))
    return window, factor, spacing, draw(st.integers(4, 12)), draw(st.integers(0, spacing - 1))


def spread(x: torch.Tensor, spacing: int, cut: int) -> torch.Tensor:
    """A map in which every so many pixels are those of a given one, the rest noise."""
    height, width = x.shape[2] * spacing - cut, x.shape[3] * spacing - cut
    larger = torch.randn(*x.shape[:2], height, width)
    larger[:, :, ::spacing, ::spacing] = x
    return larger


def check(relaxed: Relaxed, old: torch.Tensor, new: torch.Tensor) -> None:
    apart = relaxed.factor[0] * relaxed.spacing[0]
    standing = new[:, :, ::apart, ::apart]
    assert standing.shape == old.shape
    assert torch.allclose(standing, old, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans())
def test_convolutions(case: tuple[Window, int, int, int, int], keep_size: bool) -> None:
    window, factor, spacing, size, cut = case
    window = Window(window.kernel, window.stride, window.lead, window.tail)
    x, weight = torch.randn(1, 4, size, size + 1), torch.randn(6, 2, *window.kernel)
    old = F.conv2d(x, weight, None, window.stride, window.lead, 1, 2)
    relaxed = Relaxed(window, (factor,) * 2, (spacing,) * 2, keep_size, exact=True)
    new = relaxed(F.conv2d, (spread(x, spacing, cut), weight, None), {"groups": 2})
    assume(new.shape[2] > 0)
    check(relaxed, old, new[:, :, : relaxed.size(0, spacing * size)])


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans(), st.booleans())
def test_pools(case: tuple[Window, int, int, int, int], keep_size: bool, include: bool) -> None:
    window, factor, spacing, size, cut = case
    x = torch.randn(1, 2, size, size + 1)
    relaxed = Relaxed(window, (factor,) * 2, (spacing,) * 2, keep_size, exact=True)
    larger, shape = spread(x, spacing, cut), (window.kernel, window.stride, window.lead)
    options = {"ceil_mode": window.ceil_mode}
    check(relaxed, F.max_pool2d(x, *shape, **options), relaxed(F.max_pool2d, (larger, *shape), options))
    options["count_include_pad"] = include
    check(relaxed, F.avg_pool2d(x, *shape, **options), relaxed(F.avg_pool2d, (larger, *shape), options))


@given(st.integers(1, 3), st.integers(5, 9), st.integers(0, 2))
def test_slices_and_space_to_depth(spacing: int, half: int, cut: int) -> None:
    x = torch.randn(1, 3, 2 * half, 2 * half)
    larger = spread(x, spacing, min(cut, spacing - 1))
    for start in (0, 1):
        index = (..., slice(start, None, 2), slice(None, None, 2))
        relaxed = Relaxed(Window((1, 1), (2, 2), (-start, 0)), (2, 2), (spacing,) * 2, keep_size=True, exact=True)
        check(relaxed, x[index], relaxed(torch.Tensor.__getitem__, (larger, index), {}))
    relaxed = Relaxed(Window((2, 2), (2, 2)), (2, 2), (spacing,) * 2, keep_size=True, exact=True)
    check(relaxed, F.pixel_unshuffle(x, 2), relaxed(F.pixel_unshuffle, (larger, 2), {}))


def test_padding_is_spread_by_axis() -> None:
    x = torch.randn(1, 2, 6, 6)
    assert Spread((2, 3))(F.pad, (x, (1, 0, 0, 1)), {"mode": "reflect"}).shape == (1, 2, 8, 9)


def test_whole_maps() -> None:
    x = torch.randn(2, 3, 5, 6)
    assert torch.allclose(WholeMap()(F.avg_pool2d, (x, 3), {}), x.mean((2, 3), keepdim=True), atol=1e-6)
    assert torch.equal(WholeMap()(F.max_pool2d, (x, 3), {}), x.amax((2, 3), keepdim=True))


def test_a_larger_map_is_averaged_to_the_size_that_a_call_expects() -> None:
    x = torch.randn(2, 3, 4, 6)
    averaged = F.avg_pool2d(x, (2, 3))
    assert torch.allclose(AveragedTo((2, 2))(torch.flatten, (x, 1), {}), averaged.flatten(1), atol=1e-6)
    assert torch.allclose(
        AveragedTo((2, 2))(torch.flatten, (), {"input": x, "start_dim": 1}), averaged.flatten(1), atol=1e-6
    )

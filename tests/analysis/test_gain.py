"""Gains against closed forms."""

import math

import pytest
import torch
from torch import nn

from robustmaps.analysis import (
    Toy,
    ToyNetwork,
    Weights,
    estimate,
    first_order_gain,
    margin_gain,
    margin_gains,
    random_weights,
    ratio,
    reached_gain,
)
from robustmaps.engine.errors import InputError

X = 0.25 + 0.5 * torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(2 * 6 * 6, generator=torch.Generator().manual_seed(1))


def linear(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1) @ WEIGHT


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", float("inf"))])
def test_of_a_linear_function_it_is_the_dual_norm(norm, dual):
    gain = first_order_gain(linear, X, eps=0.1, norm=norm)
    assert torch.allclose(gain, 0.1 * WEIGHT.norm(dual).expand(3))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_function_all_of_it_is_reached(norm):
    expected = first_order_gain(linear, X, eps=0.1, norm=norm)
    assert torch.allclose(reached_gain(linear, X, eps=0.1, norm=norm, steps=20), expected, rtol=1e-3)


def test_the_bounds_of_pixels_hold_what_is_reached_but_not_the_first_order():
    black = torch.zeros(1, 2, 6, 6)
    assert first_order_gain(linear, black, eps=0.1).item() == pytest.approx(0.1 * WEIGHT.abs().sum().item())
    reached = reached_gain(linear, black, eps=0.1, steps=10).item()
    assert reached == pytest.approx(0.1 * WEIGHT.clamp(min=0).sum().item(), rel=1e-4)


def test_the_margin_of_a_linear_classifier():
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 2))
    weight = (network[1].weight[1] - network[1].weight[0]).abs().sum().item()
    gains = margin_gains(network, X, torch.tensor([0, 1, 0]), eps=0.02, steps=10)
    with torch.no_grad():
        logits = network(X)
    assert gains.margin == pytest.approx(((logits[:, 0] - logits[:, 1]) * torch.tensor([1, -1, 1])).tolist(), rel=1e-4)
    assert gains.first_order == pytest.approx([0.02 * weight] * 3, rel=1e-4)
    assert gains.reached == pytest.approx(gains.first_order, rel=1e-3)
    pairs = zip(gains.first_order, gains.margin, strict=True)
    assert gains.relative() == pytest.approx([gain / margin for gain, margin in pairs if margin > 0])
    wrong = torch.tensor([int(row.argmin()) for row in logits])
    assert margin_gain(network, X, wrong).value == float("inf")
    gain = margin_gain(network, X, 1 - wrong)
    assert 0 < gain.low <= gain.value <= gain.high


def linear_average_gain(toy: Toy, weights: Weights) -> float:
    """The exact gain of one linear convolution, a global average and a read-out, with circular images.

    The read-out of the average is a fixed combination of pixels. With ``u = sum_c v_c w_c`` (in, k, k), the pixels fall
    into ``s_eff x s_eff`` classes of ``n' = (H / s_eff)^2`` pixels, and each pixel of a class has as weight the sum of
    the taps of ``u`` that meet it, divided by ``n'``. So the l_inf gain is ``eps`` times the sum over classes and
    channels of the absolute sums, independent of the image's size.

    One of stride and upsampling must divide the other.
    """
    sums = sums_by_class(torch.einsum("c,cikl->ikl", weights.readout, weights.kernels[0]), toy)
    per_class = (toy.image_px // toy.effective_stride) ** 2
    if toy.norm == "linf":
        return toy.eps * float(sums.abs().sum())
    return toy.eps * float(sums.square().sum().sqrt()) / math.sqrt(per_class)


def sums_by_class(taps: torch.Tensor, toy: Toy) -> torch.Tensor:
    """The sum of the taps that meet each class of pixels, (in, classes, classes)."""
    inputs, side, _ = taps.shape
    classes = int(toy.effective_stride)
    sums = torch.zeros(inputs, classes, classes, dtype=taps.dtype)
    lead = (side - 1) // 2
    for row in range(side):
        for column in range(side):
            # Position i of the map reads pixel (s i + tap - lead) of the upsampled image, so pixel
            # floor((s i + tap - lead) / r) of the image; modulo s_eff this does not depend on i.
            down, right = ((tap - lead) // toy.upsample % classes for tap in (row, column))
            sums[:, down, right] += taps[:, row, column]
    return sums


@pytest.mark.parametrize(
    ("stride", "upsample"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (1, 2), (2, 4), (8, 2), (16, 2)]
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_a_linear_average_network_has_its_gain_in_closed_form(stride, upsample, norm, kernel):
    toy = Toy(stride=stride, upsample=upsample, norm=norm, kernel=kernel, linear=True, circular=True)
    generator = torch.Generator().manual_seed(0)
    weights = random_weights(toy, generator)
    image = torch.rand(1, 3, 32, 32, generator=generator)
    measured = first_order_gain(ToyNetwork(toy, weights), image, eps=toy.eps, norm=norm).item()
    assert measured == pytest.approx(linear_average_gain(toy, weights), rel=2e-4)


def test_the_closed_form_worked_out_by_hand():
    toy = Toy(kernel=2, stride=2, channels=1, in_channels=1, image_px=4, eps=0.5, linear=True, circular=True)
    weights = random_weights(toy, torch.Generator())
    weights.kernels[0][:] = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]])
    weights.readout[:] = 2.0
    # Windows of 2 x 2 side by side: each tap meets its own pixels, so all absolute values add up.
    assert linear_average_gain(toy, weights) == 0.5 * 2 * (1 + 2 + 3 + 4)
    # One step apart every tap meets every pixel, so the taps are summed first.
    whole = Toy(kernel=2, stride=1, channels=1, in_channels=1, image_px=4, eps=0.5, linear=True, circular=True)
    assert linear_average_gain(whole, weights) == 0.5 * 2 * abs(1 - 2 + 3 + 4)


def test_estimates():
    value = estimate([1.0, 2.0, 3.0, 10.0], "median")
    assert value.value == 2.5
    assert value.interval[0] <= 2.5 <= value.interval[1]
    assert estimate([2.0]).interval == (2.0, 2.0)
    halved = ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (halved.value, halved.interval) == (0.5, (0.5, 0.5))
    with pytest.raises(InputError, match="expected equal shapes"):
        ratio([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="no values"):
        estimate([])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"eps": 8.0}, "did you mean 8/255"), ({"eps": 0.1, "norm": "linff"}, "did you mean 'linf'")],
)
def test_budgets_that_are_none(options, message):
    with pytest.raises(InputError, match=message):
        first_order_gain(linear, X, **options)

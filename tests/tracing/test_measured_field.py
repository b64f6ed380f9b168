"""Receptive fields by gradient, where no rule knows them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.analysis import analyze
from robustmaps.enlarging import EnlargeWarning, enlarge
from robustmaps.tracing import find_head, measured_sights, sights, trace

ALL = float("inf")


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def network(*middle: nn.Module) -> nn.Sequential:
    """A 3 x 3 convolution, the layers given, and a head."""
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def field(model: nn.Module, size: int = 16) -> tuple[float, float] | None:
    recorded = trace(model, torch.rand(1, 3, size, size))
    head = find_head(recorded)
    assert head is not None
    assert head.map.source is not None
    sight = measured_sights(model, recorded, [head.map.source])[head.map.source]
    return None if sight is None else sight.field_px


def again() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1)


def pooled(x: Tensor, largest: bool = False) -> Tensor:
    parts = x.reshape(len(x), 8, x.shape[2] // 2, 2, x.shape[3] // 2, 2)
    return parts.amax((3, 5)) if largest else parts.mean((3, 5))


def down_and_up(x: Tensor) -> Tensor:
    return F.interpolate(F.interpolate(x, scale_factor=0.5, mode="area"), scale_factor=2, mode="nearest")


def attention(x: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    tokens = x.flatten(2).mT
    return (weigh(tokens @ tokens.mT) @ tokens).mT.reshape(x.shape)


def fading(size: int) -> Tensor:
    """What is left of each row in those after it, as in a recurrent layer; less than float64 holds after six rows."""
    steps = torch.arange(size)[None] - torch.arange(size)[:, None]
    return torch.where(steps >= 0, 1e-60 ** steps.clamp(min=0).double(), 0.0)


def windows(x: Tensor) -> Tensor:
    """Attention within windows of 4 x 4 pixels."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, c)
    parts = F.scaled_dot_product_attention(parts, parts, parts)
    return parts.reshape(n, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((Apply(pooled), again()), (8, 8)),
        ((Apply(lambda x: pooled(x, largest=True)), again()), (8, 8)),
        ((nn.LPPool2d(2, 2), again()), (8, 8)),
        ((nn.LPPool2d(2, 3, stride=1),), (5, 5)),
        ((Apply(down_and_up), again()), (6, 6)),
        ((Apply(lambda x: x + x.roll(2, 3)),), (3, 5)),
        ((Apply(lambda x: x + F.pad(x[:, :, 1:], (0, 0, 0, 1))),), (4, 3)),
        ((Apply(lambda x: x.cumsum(2)),), (ALL, 3)),
        ((Apply(lambda x: torch.einsum("nchw,hk->nckw", x, torch.ones(16, 16))),), (ALL, 3)),
        ((Apply(lambda x: torch.einsum("nchw,hk->nckw", x, fading(16).to(x.dtype))),), (ALL, 3)),
        ((Apply(lambda x: attention(x, lambda scores: scores / 9)),), (ALL, ALL)),
        ((Apply(lambda x: attention(x, torch.sigmoid)),), (ALL, ALL)),
        ((Apply(lambda x: attention(x, lambda scores: scores.softmax(-1))),), (ALL, ALL)),
        ((Apply(windows),), (6, 6)),
        ((Apply(lambda x: x + x.flip(3)),), (3, ALL)),
        ((Apply(lambda x: x + x.mT), again()), (ALL, ALL)),
        ((Apply(lambda x: x + x.rot90(1, (2, 3))),), (ALL, ALL)),
        ((Apply(lambda x: x + x[:, :, torch.arange(x.shape[2] - 1, -1, -1)]),), (ALL, 3)),
        ((Apply(lambda x: x.flip(3)),), (3, 3)),
        ((Apply(lambda x: x.softmax(1)), again()), (5, 5)),
        ((Apply(lambda x: F.conv3d(x[:, None], torch.ones(1, 1, 1, 3, 5), padding=(0, 1, 2))[:, 0]),), (5, 7)),
        ((nn.ConvTranspose2d(8, 8, 4, 2, 1), again()), (5, 5)),
        ((Apply(lambda x: x.cummax(2)[0]),), (ALL, 3)),
        ((Apply(lambda x: x.cummin(dim=3).values),), (3, ALL)),
        ((Apply(lambda x: torch.msort(x.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)),), (ALL, 3)),
        ((Apply(lambda x: x + x.median(3, keepdim=True)[0]),), (3, ALL)),
        ((Apply(lambda x: x + x.quantile(0.7, 2, keepdim=True)),), (ALL, 3)),
        ((Apply(lambda x: x + x.kthvalue(2, 3, keepdim=True).values),), (3, ALL)),
        ((Apply(lambda x: x.topk(x.shape[3], 3)[0]),), (3, ALL)),
        ((Apply(lambda x: F.unfold(x, 3, padding=1).view(len(x), 8, 9, *x.shape[2:]).median(2)[0]),), (5, 5)),
        ((Apply(lambda x: torch.where(x > 1, x, x.roll(2, 3))),), (3, 5)),
        ((Apply(lambda x: F.max_pool1d(x.flatten(2), 3, 1, 1).view_as(x)),), (3, 5)),
    ],
)
def test_what_no_rule_sees_is_measured(layers: tuple[nn.Module, ...], expected: tuple[float, float]) -> None:
    assert field(network(*layers)) == expected


@pytest.mark.parametrize(
    "layers",
    [
        (),
        (nn.MaxPool2d(3, 2, 1), again()),
        (nn.MaxPool2d(3, 2, ceil_mode=True),),
        (nn.AvgPool2d(2), again(), nn.GELU(), again()),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Sigmoid(), again()),
        (nn.GroupNorm(2, 8), again()),
        (nn.InstanceNorm2d(8), again()),
        (Apply(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()), again()),
        (Apply(lambda x: x.round()), again()),
        (Apply(lambda x: x * F.avg_pool2d(x, 7, 1, 3).sigmoid()),),
        (again(),) * 12,  # a field larger than the image
    ],
)
def test_the_rule_is_confirmed(layers: tuple[nn.Module, ...]) -> None:
    model = network(*layers)
    recorded = trace(model, torch.rand(1, 3, 16, 16))
    head = find_head(recorded)
    assert head is not None
    assert head.map.source is not None
    assert field(model) == sights(recorded)[head.map.source].field_px


def test_attention_over_pixels_is_not_measured_in_gigabytes() -> None:
    sizes = []

    def logged(x: Tensor) -> Tensor:
        sizes.append(x.shape[2])
        return attention(x, lambda scores: scores / 9)

    assert field(network(Apply(logged)), 32) == (ALL, ALL)
    assert max(sizes) == 64


def _sorted_by(x: Tensor, take: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    pixels = x.flatten(2)
    return take(pixels, pixels.argsort(-1)).view_as(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: _sorted_by(x, lambda pixels, order: pixels.gather(-1, order)),
        lambda x: _sorted_by(x, lambda pixels, order: torch.zeros_like(pixels).scatter(-1, order, pixels)),
        lambda x: _sorted_by(x, lambda pixels, order: torch.take_along_dim(pixels, order + 0, -1)),
        lambda x: _sorted_by(x, lambda pixels, order: pixels[:, :, order[0, 0]]),
        lambda x: x + x.flatten(2)[:, :, x.sum(1).flatten().argmax()][:, :, None, None],
        lambda x: x + x[:, :, x.sum(1).argmax(1)[0]],
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
        lambda x: F.fractional_max_pool2d(x, 3, output_ratio=(0.5, 0.5)),
        lambda x: F.fractional_max_pool2d(x, 3, output_size=(8, 8), return_indices=True)[0],
    ],
)
def test_a_field_is_unknown_where_the_image_or_a_draw_decides_which_pixels_are_read(
    function: Callable[[Tensor], Tensor],
) -> None:
    assert field(network(Apply(function), again())) is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(1, x.argsort(1)),
        lambda x: x.take_along_dim(x.argsort(1), 1),
        lambda x: torch.where(x > 0, x, 0 * x),
        lambda x: x * (x > 0.1),
        lambda x: x.clone().masked_fill(x < 0.1, 0),
        lambda x: x[:, torch.arange(7, -1, -1)],
    ],
)
def test_a_choice_among_the_channels_of_a_pixel_leaves_its_field(function: Callable[[Tensor], Tensor]) -> None:
    assert field(network(Apply(function), again())) == (5, 5)


def test_a_field_is_unknown_where_no_gradient_arrives() -> None:
    def cut(x: Tensor) -> Tensor:
        return x if x.is_meta else torch.tensor(x.detach().tolist(), dtype=x.dtype)

    assert field(network(Apply(cut), again())) is None


def test_what_is_told_of_the_field_is_the_measured_one() -> None:
    model = network(Apply(pooled), again()).eval()
    analysis = analyze(model, torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), steps=0, latency_runs=0)
    assert analysis.stages[-1].stage.field_px == (8, 8)
    with pytest.warns(EnlargeWarning, match="the receptive field shrinks from 8x8 to"):
        _, enlargement = enlarge(model, torch.rand(1, 3, 16, 16), upsample=2)
    assert enlargement.before.field_px == (8, 8)
    assert enlargement.before.effective_stride == (2, 2)
    assert enlargement.after.field_px is not None
    assert max(enlargement.after.field_px) < 8

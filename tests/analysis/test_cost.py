"""Costs against figures worked out by hand, on any network, without a trace left on it."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robustmaps import models
from robustmaps.analysis import analyze, measure_cost
from robustmaps.engine.errors import InputError
from robustmaps.enlarging import EnlargeWarning, enlarge, plan
from robustmaps.models import catalog


class Pooled(nn.Module):
    """A convolution whose map is pooled by a function."""

    def __init__(self, pool):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.pool = pool

    def forward(self, x):
        return self.pool(self.conv(x))


class SqueezeThenFlat(nn.Module):
    def forward(self, x):
        gate = F.adaptive_avg_pool2d(x, 1).sigmoid()
        return (x[:, :, ::2] * gate).mean((2, 3))


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def test_a_small_network_worked_out_by_hand():
    cost = measure_cost(small_network(), torch.rand(2, 3, 8, 8))
    assert cost.flops == 2 * (3 * 8 * 9 * 64 + 8 * 16 * 9 * 16 + 16 * 5)
    assert cost.parameters == 3 * 8 * 9 + 2 * 8 + (8 * 16 * 9 + 16) + (16 * 5 + 5)
    # fp32: the first convolution's map (for batch-norm), the activated map (for ReLU and the second convolution,
    # once), and the linear layer's 16 inputs. The second convolution's map is averaged, for which nothing is kept.
    assert cost.activation_bytes == 4 * (8 * 64 + 8 * 64 + 16)
    assert cost.map_size == (4, 4)
    assert cost.latency_s is None


def test_resnet8_worked_out_by_hand():
    stem, group1 = 3 * 16 * 9 * 32**2, 2 * 16 * 16 * 9 * 32**2
    group2 = (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16**2
    group3 = (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8**2
    cost = measure_cost(models.create("resnet8"), torch.rand(1, 3, 32, 32))
    assert cost.flops == 2 * (stem + group1 + group2 + group3 + 64 * 10)
    assert cost.map_size == (8, 8)


class SmallTransformer(nn.Module):
    """Patches of 4 pixels, a layer of attention of PyTorch's own making and one of functions, and the average."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=True)
        self.queries = nn.Linear(32, 96)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.patches(x)
        height, width = x.shape[2:]
        x = self.layer(x.flatten(2).transpose(1, 2))
        q, k, v = self.queries(x).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x.transpose(1, 2).unflatten(2, (height, width)).mean((2, 3)))


def test_attention_counts_the_same_everywhere():
    tokens, width = 64, 32
    attention = 2 * tokens * tokens * width
    projections = tokens * width * (4 + 2 * 2) * width  # in, out and the two linear layers behind
    by_hand = 2 * (tokens * width * 48 + projections + attention + tokens * width * 96 + attention + width * 10)
    network, x = SmallTransformer().eval(), torch.rand(2, 3, 32, 32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x[:1])
    assert counter.get_total_flops() == by_hand
    fast_path = torch.backends.mha.get_fastpath_enabled()
    assert measure_cost(network, x).flops == by_hand
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    analysed = analyze(network, x, torch.zeros(2, dtype=torch.long), eps=0.1, norm="linf", steps=0)
    assert analysed.cost.flops == sum(r.share.flops for r in analysed.stages) + analysed.rest.flops == by_hand
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnlargeWarning)
        _, enlargement = enlarge(network, x, upsample=2, latency_runs=0)
    assert enlargement.before.cost.flops == by_hand
    assert plan(network, x, budget=1, upsamples=(1,)).options[0].cost.flops == by_hand
    with torch.device("meta"):
        assert measure_cost(SmallTransformer(), torch.empty(1, 3, 32, 32)).flops == by_hand


def test_shapes_alone_give_the_same_cost():
    with torch.device("meta"):
        dry = measure_cost(models.create("resnet8", upsample=2), torch.empty(1, 3, 32, 32))
    assert dry == measure_cost(models.create("resnet8", upsample=2), torch.rand(1, 3, 32, 32))


def test_enlarging_quadruples_operations_and_memory():
    plain, enlarged = (
        measure_cost(models.create("resnet8", upsample=factor), torch.rand(1, 3, 16, 16)) for factor in (1, 2)
    )
    assert plain.parameters == enlarged.parameters
    assert enlarged.flops == pytest.approx(4 * plain.flops, rel=1e-3)
    assert enlarged.activation_bytes == pytest.approx(4 * plain.activation_bytes, rel=0.01)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = small_network().train(training)
    model[1].train(not training)
    model[0].requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    example = torch.rand(2, 3, 8, 8)
    cost = measure_cost(model, example)
    assert (model.training, model[1].training) == (training, not training)
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 6]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not example.requires_grad
    assert cost == measure_cost(model.requires_grad_(True).eval(), example)


def test_the_model_is_left_as_it_was_after_an_error():
    model = small_network().requires_grad_(False)
    with pytest.raises(InputError, match=r"can't be run on images of shape \(1, 4, 8, 8\): .*channels"):
        measure_cost(model, torch.rand(1, 4, 8, 8))
    assert all(module.training for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


def through_numpy(x):
    return torch.from_numpy(2 * x.numpy())


def one_at_a_time(x):
    if len(x) > 1:
        raise LookupError("one at a time")
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (through_numpy, r"shape \(2, 3, 8, 8\) with gradients, .* backward pass: Can't call numpy"),
        (one_at_a_time, r"shape \(2, 3, 8, 8\) with gradients, .* backward pass: one at a time"),
    ],
)
def test_a_network_that_cannot_be_measured_says_why(function, message):
    class Odd(nn.Module):
        def forward(self, x):
            return function(x).flatten(1)

    with pytest.raises(InputError, match=message):
        measure_cost(Odd(), torch.rand(1, 3, 8, 8))


def test_what_is_saved_sparsely_counts():
    class Sparse(nn.Module):
        def forward(self, x):
            return x.to_sparse().to_dense().sin().flatten(1)

    assert measure_cost(Sparse(), torch.rand(1, 3, 8, 8)).activation_bytes >= 4 * 3 * 64


def test_gradients_need_not_be_on():
    with torch.no_grad():
        assert measure_cost(small_network(), torch.rand(1, 3, 8, 8)).activation_bytes > 0


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (nn.AdaptiveAvgPool2d(1), (4, 6)),
        (nn.AdaptiveMaxPool2d(1), (4, 6)),
        (nn.Sequential(nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten()), (4, 6)),
        (nn.AvgPool2d((4, 6)), (4, 6)),
        (lambda x: x.mean((2, 3)), (4, 6)),
        (lambda x: x.mean(dim=[-1, -2], keepdim=True), (4, 6)),
        (lambda x: x.amax((2, 3)), (4, 6)),
        (nn.Flatten(), (4, 6)),
        (lambda x: F.avg_pool2d(x, 2).flatten(1), (2, 3)),
        (SqueezeThenFlat(), (2, 6)),
        (lambda x: x, None),
        (lambda x: x.amax(), None),
    ],
)
def test_map_size_of_any_network(pool, size):
    assert measure_cost(Pooled(pool), torch.rand(1, 3, 8, 12)).map_size == size


def test_latency_is_measured_on_request():
    cost = measure_cost(small_network(), torch.rand(1, 3, 8, 8), latency_runs=3)
    assert cost.latency_s is not None
    assert 0 < cost.latency_s < 1


def test_costs_go_through_json():
    cost = measure_cost(small_network(), torch.rand(1, 3, 8, 8))
    assert json.loads(json.dumps(cost.to_dict())) == {
        "flops": cost.flops,
        "parameters": cost.parameters,
        "activation_bytes": cost.activation_bytes,
        "map_size": [4, 4],
        "latency_s": None,
    }


@pytest.mark.parametrize(
    ("shape", "runs", "message"),
    [
        ((3, 8, 8), 0, r"example of shape \(3, 8, 8\): expected images"),
        ((0, 3, 8, 8), 0, "at least one"),
        ((1, 3, 8, 8), 2, "latency_runs=2: nothing is computed on the meta device"),
    ],
)
def test_unusable_examples_are_refused(shape, runs, message):
    with pytest.raises(InputError, match=message):
        measure_cost(small_network().to("meta"), torch.empty(shape, device="meta"), latency_runs=runs)


def test_catalog_lists_networks_with_their_sizes():
    narrow, wide = catalog(["resnet8", "wrn34_20"])
    assert narrow.to_dict() == {
        "name": "resnet8",
        "family": "ResNet",
        "strides": "122",
        "parameters": 78042,
        "flops": 25003264,
        "map_size": [8, 8],
    }
    assert (wide.family, wide.map_size, wide.parameters) == ("Wide ResNet", (8, 8), 184_531_674)


def test_catalog_refuses_unknown_names():
    with pytest.raises(InputError, match="did you mean 'resnet8'"):
        catalog(["resnet9"])

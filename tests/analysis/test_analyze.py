"""Analyses against figures that are known."""

import copy
import json
import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustmaps import models
from robustmaps.analysis import analyze, analyze_both, effective_field_px, feature_gain, feature_maps, measure_cost
from robustmaps.engine.errors import InputError
from robustmaps.enlarging import enlarge

X = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3])
QUICK = {"steps": 0, "latency_runs": 0, "directions": 1}


@pytest.fixture(scope="module")
def resnet8():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return models.create("resnet8")


@pytest.fixture(scope="module")
def analysis(resnet8):
    return analyze(resnet8, X, Y, steps=2, latency_runs=1, directions=2)


def test_stages_of_a_network_of_ours(analysis):
    stages = [report.stage for report in analysis.stages]
    assert [s.name for s in stages] == [f"body.features.group{n}" for n in (1, 2, 3)]
    assert [(s.map_size, s.channels) for s in stages] == [((32, 32), 16), ((16, 16), 32), ((8, 8), 64)]
    assert [s.pooling for s in stages] == ["conv 3x3 / 2", "conv 3x3 / 2", "average of all"]
    assert [s.stride for s in stages] == [(1, 1), (2, 2), (4, 4)]
    assert [s.field_px for s in stages] == [(7, 7), (13, 13), (25, 25)]


def test_costs_add_up_to_what_the_counter_says(analysis, resnet8):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(resnet8).eval()(X[:1])
    parts = [*(report.share for report in analysis.stages), analysis.rest]
    assert sum(part.flops for part in parts) == analysis.cost.flops == counter.get_total_flops()
    assert sum(part.activation_bytes for part in parts) == analysis.cost.activation_bytes
    assert all(part.seconds > 0 for part in parts)
    stem, group1 = 3 * 16 * 9 * 32**2, 2 * 16 * 16 * 9 * 32**2
    assert parts[0].flops == 2 * (stem + group1)
    assert parts[-1].flops == 2 * 64 * 10


def peak_bytes_of_forward(model: nn.Module, images: torch.Tensor) -> int:
    """What the allocator says."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model(images)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet8", {}), ("resnet8", {"upsample": 2}), ("resnet8", {"strides": "112"}), ("preactresnet18", {})],
)
def test_activation_memory_is_the_measured_peak_within_a_tenth(name, options):
    network = models.create(name, **options)
    peak_bytes_of_forward(network, X[:2])
    few, many = (peak_bytes_of_forward(network, torch.rand(n, 3, 32, 32)) for n in (8, 16))
    measured = (many - few) / 8
    assert measure_cost(network, X[:1]).activation_bytes == pytest.approx(measured, rel=0.1)


def test_effective_fields_grow_and_stay_within_the_theoretical(analysis):
    sides = [report.effective_field_px for report in analysis.stages]
    assert sides == sorted(sides)
    assert all(side <= min(32, report.stage.field_px[0]) for side, report in zip(sides, analysis.stages, strict=True))


def test_the_smallest_square():
    energy = torch.zeros(9, 9)
    energy[3:6, 2:5] = 1
    assert effective_field_px(energy, share=1.0) == 3
    assert effective_field_px(energy, share=0.1) == 1
    energy[0, 8] = 0.1
    assert effective_field_px(energy, share=0.95) == 3
    assert effective_field_px(energy, share=1.0) == 7
    assert effective_field_px(torch.ones(4, 10), share=1.0) == 10
    assert effective_field_px(torch.zeros(4, 4)) == 0


def test_the_last_stages_gain_by_hand(resnet8):
    network = copy.deepcopy(resnet8).eval()
    found = analyze(network, X, Y, **QUICK)
    maps = feature_maps(network, X, [report.stage for report in found.stages])
    assert torch.allclose(maps[-1].mean((2, 3)), network.body.pool(network.body.features(X)).flatten(1), atol=1e-6)
    last = found.stages[-1].gain
    assert last.reached is None
    assert last.relative.value == pytest.approx(last.first_order.value / last.spread)
    assert feature_gain(network, X, directions=64).value == pytest.approx(last.relative.value, rel=0.5)


def test_margins_are_those_of_the_logits(analysis, resnet8):
    with torch.no_grad():
        logits = copy.deepcopy(resnet8).eval()(X)
    others = logits.scatter(1, Y[:, None], -torch.inf).amax(1)
    assert analysis.margin.margin == pytest.approx((logits.gather(1, Y[:, None])[:, 0] - others).tolist(), abs=1e-5)
    assert all(r <= 1.2 * f for r, f in zip(analysis.margin.reached, analysis.margin.first_order, strict=True))


def test_the_network_is_left_as_it_was(resnet8):
    network = copy.deepcopy(resnet8).train()
    network.body.features[0].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    analyze(network, X[:2], Y[:2], **QUICK)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(p.requires_grad for p in network.body.features[0].parameters())
    assert all(p.requires_grad for p in network.body.head.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
@pytest.mark.parametrize("how", [{"factor": 2, "where": "last"}, {"upsample": 2}, {"factor": 2, "where": [0, 1]}])
def test_before_and_after_look_at_the_same_places(resnet8, how):
    larger, enlargement = enlarge(resnet8, X[:1], **how, latency_runs=0)
    pair = analyze_both(resnet8, larger, X, Y, **QUICK)
    names = [[report.stage.name for report in side.stages] for side in (pair.before, pair.after)]
    assert names[0] == names[1]
    last = pair.after.stages[-1].stage
    assert last.map_size == enlargement.after.cost.map_size
    assert (last.stride, last.field_px) == (enlargement.after.effective_stride, enlargement.after.field_px)
    assert pair.after.cost.flops == enlargement.after.cost.flops
    assert "→" in str(pair)
    assert json.loads(json.dumps(pair.to_dict(), allow_nan=False))["after"]["images"] == 4
    if how.get("where") == "last":
        pairs = zip(pair.before.stages, pair.after.stages, strict=True)
        same = [a.gain.first_order == b.gain.first_order for a, b in pairs]
        assert same == [True, True, False]


class Functional(nn.Module):
    """No modules to hook into, in-place changes, a gate, a shortcut around a strided branch, attributes read."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.short, self.head = nn.Conv2d(6, 6, 1, 2), nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu_(self.first(x))
        x = x * x.mean((2, 3), keepdim=True).sigmoid()
        if x.requires_grad and x.shape[0] > 0:
            x = x.contiguous()
        y = torch.nn.functional.max_pool2d(self.second(x) + self.short(x), 3, 2, 1)
        return self.head(y.relu_().amax((2, 3)))


def test_any_network():
    network = Functional()
    found = analyze(network, X, Y, steps=1, latency_runs=0)
    assert [(r.stage.map_size, r.stage.pooling) for r in found.stages] == [
        ((32, 32), "conv 3x3 / 2"),
        ((16, 16), "max pool 3x3 / 2"),
        ((8, 8), "maximum of all"),
    ]
    assert sum(r.share.flops for r in found.stages) + found.rest.flops == found.cost.flops
    # The head takes maxima, so the pooled features of the last stage are maxima too: the read-out of them is the logit.
    last = feature_maps(network, X, [r.stage for r in found.stages])[-1]
    with torch.no_grad():
        assert torch.allclose(network.head(last.amax((2, 3))), network(X), atol=1e-6)


def test_one_image_has_no_spread(resnet8):
    found = analyze(resnet8, X[:1], Y[:1], **QUICK)
    assert found.stages[0].gain.relative is None
    assert json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(InputError, match="at least two"):
        feature_gain(resnet8, X[:1])


def test_it_prints_units(analysis):
    text = str(analysis)
    for part in ("l_inf, eps 8/255", "FLOP", "kB", "ms", "field (px)", "gain / margin", "PGD-2"):
        if part != "gain / margin" or analysis.margin.right.any():
            assert part in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X * 255}, "divide by 255"),
        ({"y": torch.tensor([0, 1, 2, 10])}, "the network has 10 classes"),
        ({"eps": 8.0}, "did you mean 8/255"),
        ({"norm": "linff"}, "did you mean 'linf'"),
        ({"steps": -1}, "steps=-1"),
    ],
)
def test_refusals(resnet8, change, message):
    with pytest.raises(InputError, match=message):
        analyze(resnet8, **{"x": X, "y": Y, **QUICK, **change})


def test_a_network_without_maps():
    with pytest.raises(InputError, match="no map"):
        analyze(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), X, Y, **QUICK)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda logits: logits.where(torch.arange(len(logits))[:, None] > 0, torch.nan),
        lambda logits: logits * torch.nan,
        lambda logits: torch.cat([logits[:, :9], logits[:, 9:] + torch.inf], 1),
        lambda logits: logits.masked_fill(logits < logits.topk(2).values[:, 1:], -torch.inf),
    ],
    ids=["NaN for an image", "NaN", "infinite", "masked"],
)
def test_logits_that_are_not_finite_are_null_in_json(resnet8, spoil):
    class Spoilt(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return spoil(self.network(x))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow", RuntimeWarning)
        found = analyze_both(Spoilt(resnet8), Spoilt(resnet8), X, Y, steps=2, latency_runs=0, directions=1)
        written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    margin = found.before.margin
    assert None in written["before"]["margin"]["images"]["margin"]
    assert [each is None for each in written["before"]["margin"]["images"]["margin"]] == [
        abs(each) == float("inf") for each in margin.margin
    ]
    assert str(found)

"""``plan``: what fits a budget, and what beats what."""

import json
import math

import pytest
import torch
from torch import nn

from robustmaps import models
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.enlarging import enlarge, plan

IMAGE = torch.rand(1, 3, 32, 32)
SMALL = torch.rand(1, 3, 8, 8)  # which every map of ResNet-8 sees as a whole


def test_all_options_within_the_budget_the_cheapest_first() -> None:
    found = plan(models.create("resnet8"), IMAGE, budget=4.5)
    options = [(option.upsample, option.where) for option in found.options]
    assert options == [(1, ()), (1, (1,)), (1, (0,)), (2, ())]
    assert [option.relative for option in found.options] == sorted(option.relative for option in found.options)
    assert all(option.relative <= 4.5 for option in found.options)
    assert found.options[0].relative == 1
    assert found.options[0].best


def test_costs_are_those_of_the_enlarged_networks() -> None:
    network = models.create("resnet8").eval()
    for option in plan(network, IMAGE, budget=3, upsamples=(1,)).options[1:]:
        with pytest.warns(UserWarning, match="receptive field"):
            _, enlargement = enlarge(network, IMAGE, factor=2, where=option.where, latency_runs=0)
        assert option.cost == enlargement.after.cost
        assert option.effective_stride == enlargement.after.effective_stride


def test_dilation_without_a_window_behind_it_is_said_to_change_nothing() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    found = plan(network, IMAGE, budget=9, upsamples=(1,), dilate=True)
    assert {option.where: option.spread for option in found.options} == {
        (): True,
        (1,): False,
        (0,): True,
        (0, 1): True,
    }
    assert "where 1: dilate changes nothing, since no window follows" in str(found)
    assert "changes nothing" not in str(plan(network, IMAGE, budget=9, upsamples=(1,)))
    _, last = enlarge(network, IMAGE, where="last", dilate=True, latency_runs=0)
    assert "(dilate changes nothing, since no window follows" in str(last)


def test_the_front_holds_what_nothing_beats() -> None:
    found = plan(models.create("resnet8"), SMALL, budget=10)
    for option in found.front:
        assert not any(
            other.relative < option.relative and other.cost.map_size >= option.cost.map_size for other in found.options
        )
    last, first = ({o.where: o for o in found.options if o.upsample == 1}[where] for where in ((1,), (0,)))
    assert last.relative < first.relative
    assert last.best
    assert not first.best


def test_a_smaller_gain_counts() -> None:
    network = models.create("resnet8")
    found = plan(network, IMAGE, budget=3, upsamples=(1,), gain=lambda model: float(model is not network))
    assert [option.gain for option in found.options] == [0, 1, 1]
    found = plan(network, IMAGE, budget=3, upsamples=(1,), measure="memory", gain=lambda _: 1.0)
    assert "memory" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["options"][0]["gain"] == 1


def test_nothing_is_starred_that_another_beats_in_cost_and_gain() -> None:
    """As both are printed; what is no number beats nothing."""
    network = models.create("resnet8")
    gains = iter([0.5, math.nan, 0.5004, 0.4])
    found = plan(network, SMALL, budget=4.5, gain=lambda _: next(gains))
    assert [option.best for option in found.options if option.gain in (0.5, 0.4)] == [True, True]
    assert len(found.front) == 2
    assert "* no other one within 4.5x flops has as small a gain" in str(found)
    sure = plan(network, IMAGE, budget=3, upsamples=(1,), gain=lambda _: Measured(0.5, 0.4, 0.6))
    assert "0.5 [0.4, 0.6]" in str(sure)
    assert sure.to_dict()["options"][0]["interval"] == [0.4, 0.6]


def test_training_that_enlarges_late_costs_the_mean_of_its_epochs() -> None:
    network = models.create("resnet8")
    whole = plan(network, IMAGE, budget=4.5)
    late = plan(network, IMAGE, budget=1.7, shares=(0.8,))
    for option in late.options:
        assert option.training == pytest.approx(0.8 + 0.2 * option.relative)
        assert option.training <= 1.7
    assert {(o.upsample, o.where) for o in whole.options} <= {(o.upsample, o.where) for o in late.options}
    assert "enlarged after 80 % of them" in str(late)
    assert "training" not in str(whole)
    grown = plan(network, IMAGE, budget=3, upsamples=(1, 2), shares=(0.5, 0.8))
    (plain, twice) = grown.options
    middle = plan(network, IMAGE, budget=3, upsamples=(1.5, 1.5)).options
    assert len(middle) == len({(o.upsample, o.where) for o in middle})
    half = next(o.relative for o in middle if (o.upsample, o.where) == (1.5, ()))
    assert (plain.training, twice.upsample, twice.where) == (1, 2, ())
    assert twice.training == pytest.approx(0.5 + 0.3 * half + 0.2 * twice.relative)
    assert grown.to_dict()["enlarge_at"] == [0.5, 0.8]
    with pytest.raises(InputError, match="does not add up over epochs"):
        plan(network, IMAGE, measure="memory", shares=(0.8,))


def test_nothing_below_the_floor() -> None:
    found = plan(models.create("resnet8"), IMAGE, budget=1e6, upsamples=(1, 2, 4, 8), dilate=True)
    assert min(max(option.effective_stride) for option in found.options) == 1


def test_refusals() -> None:
    network = models.create("resnet8")
    with pytest.raises(InputError, match=r"budget=0.5: expected a number of at least 1"):
        plan(network, IMAGE, budget=0.5)
    with pytest.raises(InputError, match="unknown measure 'flop'; did you mean 'flops'"):
        plan(network, IMAGE, measure="flop")


def test_a_plan_says_where_the_last_map_sees_too_little():
    """Two 3x3 convolutions of stride 2: 7 pixels are seen, 5 where the first one is relaxed, 4 with images x2."""
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    found = plan(network, torch.rand(1, 1, 7, 7), budget=20)
    shares = {(option.upsample, option.where): option.field_share for option in found.options}
    assert shares[1, ()] == 1
    assert shares[1, (0,)] == pytest.approx(5 / 7)
    assert shares[1, (1,)] == 1
    assert shares[2, ()] == pytest.approx(4 / 7)  # seven pixels of the upsampled image lie on four
    assert not any(o.sees_enough for o in found.options if o.where == (0,))
    assert "enlarge only while it does, or dilate" in str(found)
    dilated = str(plan(network, torch.rand(1, 1, 7, 7), budget=20, dilate=True))
    assert "enlarge only while it does" in dilated
    assert "or dilate" not in dilated
    # Whatever its gain, what sees less of the image than the given network is not starred.
    falling = iter(range(100, 0, -1))
    starred = plan(network, torch.rand(1, 1, 7, 7), budget=20, gain=lambda _: float(next(falling))).front
    assert {(o.upsample, o.where) for o in starred} == {(1, ()), (1, (1,))}
    assert "does not see" not in str(plan(network, torch.rand(1, 1, 4, 4), budget=1, upsamples=(1,)))


def test_a_larger_map_is_no_merit_beside_a_measured_gain() -> None:
    """Nothing is marked that is worse in cost and in gain than something else."""
    gains = iter(range(100))
    found = plan(models.create("resnet8"), IMAGE, budget=4.5, gain=lambda _: float(next(gains)))
    assert len(found.options) > 2
    for option in found.front:
        assert not any(o.relative < option.relative and o.gain < option.gain for o in found.options)
    assert found.front == (found.options[0],)

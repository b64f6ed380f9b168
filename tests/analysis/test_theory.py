"""The two findings, from fixed seeds and within stated tolerances."""

import json

import pytest
import torch

from robustmaps.analysis import (
    BASIC,
    POOLS,
    Toy,
    Variation,
    fit_exponent,
    laboratory,
    measure,
    predicted_gain,
    random_weights,
    standard_variations,
)
from robustmaps.analysis._theory import APART, FLOOR
from robustmaps.engine.errors import InputError

DRAWS = 16


def series(name, pool, **options):
    variation = next(v for v in standard_variations(pool) if v.name == name)
    return laboratory([variation], draws=DRAWS, steps=0, seed=0, **options).named(name, pool)


@pytest.mark.parametrize("name", [BASIC, "kernel 3", "l_2", "upsampled 2, nearest", "2 layers, kernel 3"])
def test_average_pooling_falls_with_the_root_of_the_map(name):
    assert series(name, "average").exponent.value == pytest.approx(-0.5, abs=0.08)


@pytest.mark.parametrize("name", [BASIC, "kernel 3", "l_2", "upsampled 2, nearest"])
def test_max_pooling_does_not_fall(name):
    assert series(name, "max").exponent.value == pytest.approx(0, abs=0.05)


def test_a_wider_view_makes_deep_max_pooling_gain_a_little_more():
    assert series("2 layers, kernel 3", "max").exponent.value == pytest.approx(-0.1, abs=0.06)


def test_below_effective_stride_1_average_pooling_has_reached_its_floor():
    floor = series(FLOOR, "average")
    assert floor.exponent.value == pytest.approx(0, abs=0.06)
    assert [point.toy.positions for point in floor.points] == [1024, 4096, 16384]


def test_windows_that_leave_pixels_out_follow_another_law():
    assert series(APART, "average").exponent.value > 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_predicted_size_of_the_gain(stride, norm):
    point = measure(Toy(stride=stride, norm=norm), draws=DRAWS)
    assert point.predicted is not None
    assert point.gain.value == pytest.approx(point.predicted, rel=0.2)


def test_patches_that_overlap_keep_max_pooling_below_its_estimate():
    point = measure(Toy(pool="max"), draws=DRAWS)
    assert 0.5 * point.predicted < point.gain.value < point.predicted
    assert predicted_gain(Toy(depth=2)) is None
    assert predicted_gain(Toy(pool="max", upsample=2)) is None


def test_gradient_descent_reaches_nearly_all_of_the_first_order():
    found = laboratory([Variation(BASIC, (Toy(stride=4), Toy(stride=2)))], draws=3, steps=10)
    for point in found.series[0].points:
        assert 0.9 * point.gain.value < point.reached.value < 1.05 * point.gain.value


def test_the_same_seed_gives_the_same_draws_for_all_strides():
    one, again, other = (measure(Toy(stride=2), draws=2, seed=seed).draws for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    weights = random_weights(Toy(stride=2), torch.Generator().manual_seed(0))
    same = random_weights(Toy(stride=4), torch.Generator().manual_seed(0))
    assert torch.equal(weights.kernels[0], same.kernels[0])


def test_given_weights():
    toy = Toy(image_px=8)
    weights = tuple(random_weights(toy, torch.Generator().manual_seed(seed)) for seed in range(3))
    images = torch.rand(2, 3, 8, 8)
    given = tuple((each, images) for each in weights)
    found = laboratory([Variation("given", (toy, Toy(image_px=8, stride=2)), given)])
    assert [len(point.draws) for point in found.series[0].points] == [3, 3]
    assert found.series[0].points[0].predicted is None


def test_it_prints_and_goes_to_json():
    variations = [Variation(BASIC, (Toy(pool=pool, stride=2), Toy(pool=pool))) for pool in POOLS]
    found = laboratory(variations, draws=2, steps=1)
    exponents = found.exponents()
    (row,) = exponents.rows
    assert exponents.columns == ("gain ~ n^a: a [95 %]", "average", "max")
    assert row[0] == BASIC
    assert all("[" in cell for cell in row[1:])
    assert laboratory(variations[:1], draws=2, steps=0).exponents().rows[0][2] == "-"
    loaded = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [series["pool"] for series in loaded["series"]] == ["average", "max"]
    assert loaded["series"][0]["points"][0]["positions"] == 256


@pytest.mark.parametrize(
    ("toy", "message"),
    [
        ({"stride": 3}, "stride=3: expected a divisor of 32"),
        ({"stride": 8, "depth": 2}, "expected a power of 2 up to 4 for 2 layers"),
        ({"pool": "mean"}, "unknown pool 'mean'"),
        ({"upsample_mode": "linear"}, "did you mean 'bilinear'"),
        ({"kernel": 0}, "kernel=0"),
        ({"eps": 8}, "8/255"),
    ],
)
def test_networks_that_cannot_be(toy, message):
    with pytest.raises(InputError, match=message):
        Toy(**toy)


def test_one_size_has_no_exponent():
    with pytest.raises(InputError, match="at least two sizes"):
        fit_exponent([measure(Toy(), draws=2)])

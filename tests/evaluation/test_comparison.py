"""Comparisons against scipy, statsmodels, hand-worked values and simulated truth."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.evaluation import compare_all, deviation_over_seeds, holm, over_seeds


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_mean_deviation_and_interval_are_those_of_scipy_and_statsmodels(values):
    found = over_seeds(values)
    assert found.value == pytest.approx(np.mean(values))
    deviation = deviation_over_seeds(values)
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert found.interval == pytest.approx(DescrStatsW(values).tconfint_mean(), abs=1e-9)
    if deviation > 1e-6:
        assert found.interval == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(), abs=1e-9)


def test_one_seed_has_no_interval():
    assert deviation_over_seeds([0.5]) is None
    assert over_seeds([0.5]) == Measured(0.5, -math.inf, math.inf, 1)
    with pytest.raises(InputError, match="one per seed"):
        over_seeds([])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_correction_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def drawn(rates, seeds=5, images=1000, *, between=0.0, seed=0):
    """Verdicts that share the images' difficulty, and whose rates vary by that much from seed to seed."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(images)
    return {
        name: np.stack(
            [
                difficulty + 0.1 * rng.standard_normal(images) < rate + between * rng.standard_normal()
                for _ in range(seeds)
            ]
        )
        for name, rate in rates.items()
    }


def test_a_clear_difference_in_words():
    verdicts = drawn({"1222": 0.40, "1122": 0.47})
    (one,) = compare_all(verdicts)
    gain = verdicts["1122"].mean() - verdicts["1222"].mean()
    assert one.value == pytest.approx(gain)
    low, high = (100 * bound for bound in one.interval)
    assert one.sentence() == (
        f"1122 is {100 * gain:.1f} points more robust than 1222 (95 % interval {low:.1f} to {high:.1f}, "
        "5 seeds x 1,000 images)"
    )
    (back,) = compare_all(dict(reversed(verdicts.items())))
    assert back.sentence() == one.sentence()
    assert json.loads(json.dumps(one.to_dict()))["shown"] is True


def test_an_interval_over_everything_says_that_the_seeds_are_too_few():
    rows = {0: [True] * 10 + [False] * 10, 1: [False] * 10 + [True] * 10}
    (one,) = compare_all({"plain": {0: [False] * 20, 1: [True] * 20}, "large": rows})
    assert one.interval == (-1.0, 1.0)
    assert "2 seeds are too few for an interval, 20 images each" in one.sentence()
    assert "-100" not in one.sentence()


def test_the_error_is_at_least_students_over_seeds():
    verdicts = drawn({"a": 0.4, "b": 0.43}, seeds=4, images=4000, between=0.05)
    (one,) = compare_all(verdicts)
    reference = stats.ttest_rel(verdicts["b"].mean(1), verdicts["a"].mean(1))
    assert one.p_value == pytest.approx(reference.pvalue)
    assert one.interval == pytest.approx(tuple(reference.confidence_interval()), abs=1e-9)


def test_the_error_is_at_least_the_bootstraps_over_seeds_and_images():
    # Seeds that agree as if there were one: only the images are left to doubt.
    row = drawn({"a": 0.4, "b": 0.5}, seeds=1, images=300)
    verdicts = {name: np.repeat(each, 4, axis=0) for name, each in row.items()}
    (one,) = compare_all(verdicts)
    gain = row["b"][0].astype(float) - row["a"][0]
    half = 1.96 * gain.std() / gain.size**0.5
    assert one.interval == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.2 * half)


@pytest.mark.parametrize("rates", [(0.4, 0.45), (0.4, 0.4)])
def test_one_seed_is_mcnemars_test_and_says_so(rates):
    verdicts = drawn(dict(zip("ab", rates, strict=True)), seeds=1, images=400)
    (one,) = compare_all(verdicts)
    a, b = verdicts["a"][0], verdicts["b"][0]
    table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
    assert one.p_value >= one.mcnemar_p
    assert one.mcnemar_p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert one.sentence().endswith("1 seed x 400 images; one pair of networks only, other seeds may differ)")


def test_mcnemar_over_seeds_is_twice_the_mean():
    verdicts = drawn({"a": 0.4, "b": 0.42}, seeds=3, images=500)
    each = [
        mcnemar([[0, (a & ~b).sum()], [(~a & b).sum(), 0]], exact=True).pvalue
        for a, b in zip(verdicts["a"], verdicts["b"], strict=True)
    ]
    assert compare_all(verdicts)[0].mcnemar_p == pytest.approx(min(1, 2 * np.mean(each)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 5))
def test_a_difference_is_shown_where_the_interval_leaves_zero_out(seed, seeds, count):
    rng = np.random.default_rng(seed)
    rates = {str(i): rng.uniform(0.3, 0.7) for i in range(count)}
    found = compare_all(drawn(rates, seeds, 60, between=0.05, seed=seed))
    assert len(found) == count * (count - 1) / 2
    assert holm([one.p_value for one in found]) == [one.corrected_p for one in found]
    for one in found:
        assert one.interval[0] <= one.value <= one.interval[1]
        covers = one.interval[0] <= 0 <= one.interval[1]
        assert one.shown == (not covers)
        assert any(word in one.sentence() for word in ("within chance", "are equally robust")) != one.shown


def test_the_same_for_both_shows_nothing():
    row = drawn({"a": 0.4})["a"]
    (one,) = compare_all({"a": row, "b": row})
    low, high = one.interval
    assert (one.value, one.p_value, one.shown) == (0, 1, False)
    assert -0.01 < low < 0 < high < 0.01


def test_chosen_pairs_make_a_smaller_family():
    verdicts = drawn({"a": 0.4, "b": 0.5, "c": 0.45, "d": 0.42})
    assert {one.family for one in compare_all(verdicts)} == {6}
    found = compare_all(verdicts, pairs=[("b", other) for other in "acd"])
    assert [(one.a, one.b, one.family) for one in found] == [("b", "a", 3), ("b", "c", 3), ("b", "d", 3)]
    assert found[0].sentence().startswith("b is ")
    assert "corrected for 3 comparisons" in found[0].sentence()


def test_differences_are_not_shown_where_there_are_none():
    """Three alike, few seeds that differ a lot: one false claim in twenty studies is allowed, not one in three."""
    false = 0
    for seed in range(40):
        found = compare_all(drawn(dict.fromkeys("abc", 0.5), seeds=3, images=200, between=0.05, seed=seed))
        false += any(one.shown for one in found)
    assert false <= 6  # of 40 at 5 %, more has a probability of 1 in 200


@pytest.mark.parametrize("verdicts", [{"a": [True]}, {"a": [True], "b": [True, False]}, {"a": [], "b": []}])
def test_what_does_not_pair_is_refused(verdicts):
    with pytest.raises(InputError, match="expected two or more configurations on the same images"):
        compare_all(verdicts)


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="pairs with c: expected names among a, b"):
        compare_all({"a": [True], "b": [False]}, pairs=[("a", "c")])


def test_a_pair_is_compared_over_the_seeds_that_both_have():
    verdicts = drawn({"a": 0.3, "b": 0.5, "c": 0.6}, seeds=4)
    some = {name: dict(enumerate(rows)) for name, rows in verdicts.items()}
    del some["c"][1], some["c"][3]
    found = {(one.a, one.b): one for one in compare_all(some)}
    assert [one.seeds for one in found.values()] == [4, 2, 2]
    assert found["a", "b"].value == pytest.approx(compare_all(verdicts)[0].value)
    assert found["b", "c"].value == pytest.approx(float(verdicts["c"][[0, 2]].mean() - verdicts["b"][[0, 2]].mean()))
    some["c"] = {7: verdicts["c"][0]}
    assert [(one.a, one.b, one.family) for one in compare_all(some)] == [("a", "b", 1)]


def test_verdicts_that_are_all_alike_still_have_an_interval():
    none = np.zeros((2, 120), dtype=bool)
    (one,) = compare_all({"a": none, "b": none})
    assert one.value == 0
    assert one.interval == pytest.approx((-0.031, 0.031), abs=1e-3)  # Wilson's upper bound of 0 of 120
    assert not one.shown

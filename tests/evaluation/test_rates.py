"""Intervals and tests against values worked out by hand, simulated, or from scipy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.evaluation import compare_all, deviation_over_seeds, rate_over_seeds


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    successes, total = counts
    p, z = successes / total, 1.959963984540054
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = Measured.share(successes, total).interval
    assert low == pytest.approx(max(0.0, centre - half), abs=1e-9)
    assert high == pytest.approx(min(1.0, centre + half), abs=1e-9)
    assert low - 1e-12 <= p <= high + 1e-12


def test_a_rate_as_text_and_json() -> None:
    # The example of Newcombe, Statistics in Medicine 1998, method 3: 81 of 263 gives 0.2553 to 0.3662.
    rate = Measured.share(81, 263)
    assert rate.interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert str(rate) == "30.8 % [25.5, 36.6]"
    assert json.loads(json.dumps(rate.to_dict())) == {
        "value": 81 / 263,
        "interval": list(rate.interval),
        "successes": 81,
        "total": 263,
    }
    assert Measured.share(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-4)


def test_the_interval_is_scipys_to_the_last_bit() -> None:
    for total in (1, 2, 7, 100, 263, 1009, 10_000):
        for successes in {0, 1, total // 3, total // 2, total - 1, total}:
            low, high = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
            share = Measured.share(successes, total)
            assert share.interval == (low, high)
            assert (share.successes, share.count) == (successes, total)


def test_a_figure_that_is_no_share() -> None:
    figure = Measured(0.0293, 0.0271, 0.0314, 20)
    assert str(figure) == "0.0293 [0.0271, 0.0314]"
    assert figure.to_dict() == {"value": 0.0293, "interval": [0.0271, 0.0314], "count": 20}
    assert Measured(0.5, 0.25, 1.0).scaled(100) == Measured(50.0, 25.0, 100.0)
    with pytest.raises(TypeError, match="not a share of counted samples"):
        _ = figure.successes


def verdicts(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = [True] * both + [False] * gained + [True] * lost + [False] * neither
    b = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        # Two-sided: twice the tail of a fair coin.
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (2, 8, 2 * (1 + 10 + 45) / 2**10),
        (6, 0, 2 / 2**6),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
        (30, 12, stats.binomtest(30, 42).pvalue),
    ],
)
def test_mcnemars_test(gained: int, lost: int, p_value: float) -> None:
    (difference,) = compare_all(dict(zip("ab", verdicts(20, gained, lost, 7), strict=True)))
    assert difference.mcnemar_p == pytest.approx(p_value)
    assert difference.value == pytest.approx((gained - lost) / (27 + gained + lost))


def test_the_paired_interval_is_that_of_the_mean_of_differences() -> None:
    a, b = verdicts(300, 80, 40, 80)
    (difference,) = compare_all({"a": a, "b": b})
    gain = b.astype(float) - a
    half = 1.96 * gain.std() / math.sqrt(500)
    assert difference.interval == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.1 * half)
    # Pairing is what makes it this narrow.
    unpaired = 1.96 * math.sqrt((a.var() + b.var()) / 500)
    assert difference.interval[1] - difference.interval[0] < 0.9 * 2 * unpaired
    assert difference == compare_all({"a": a, "b": b})[0]
    assert difference.interval != compare_all({"a": a, "b": b}, seed=1)[0].interval
    assert str(difference).startswith("+8.0 points [+")
    assert json.dumps(difference.to_dict())


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(25):
        quality = rng.random(120)
        a, b = quality + 0.2 * rng.random(120) > 0.6, quality + 0.2 * rng.random(120) > 0.5
        low, high = compare_all({"a": a, "b": b})[0].interval
        covered += low <= 0.1 <= high
    assert covered >= 20  # of 25 at 95 %, fewer than that has a probability below 1 in 500


def test_a_rate_over_seeds() -> None:
    verdicts = [[True, True, False, False], [True, True, True, False], [True, True, True, True]]
    rate = rate_over_seeds(verdicts)
    assert rate.value == 0.75
    assert deviation_over_seeds(np.mean(verdicts, 1)) == pytest.approx(0.25)  # of 0.5, 0.75 and 1
    assert rate.interval[0] < 0.75 < rate.interval[1] <= 1
    assert str(rate).startswith("75.0 % [")
    assert json.loads(json.dumps(rate.to_dict()))["interval"] == list(rate.interval)
    assert deviation_over_seeds([0.5]) is None
    assert rate_over_seeds([True, False]) == rate_over_seeds([[True, False]])


def test_verdicts_that_do_not_pair_are_refused() -> None:
    with pytest.raises(InputError, match=r"shapes \[\(2,\), \(3,\)\]: expected two or more configurations"):
        compare_all({"a": [True, False], "b": [True, False, True]})
    with pytest.raises(InputError, match="expected two or more"):
        compare_all({"a": [], "b": []})
    with pytest.raises(InputError, match="no verdicts"):
        rate_over_seeds([])

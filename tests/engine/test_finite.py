"""What NaN and infinity mean in logits and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.engine.finite import finite_gradient, is_right, largest_difference, undecided

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([1.0, 3.0, 2.0], 1),
        ([-INF, 3.0, -INF], 1),  # masked classes
        ([1.0, INF, 2.0], 1),  # a single infinity is a largest logit
        ([0.0, 0.0, 0.0], 0),  # a tie, which the first class wins
        ([NAN, 3.0, 2.0], None),
        ([NAN, NAN, NAN], None),
        ([INF, INF, 2.0], None),
        ([-INF, -INF, -INF], None),
        ([INF, NAN, -INF], None),
    ],
)
def test_the_label_that_counts_as_right(row: list[float], label: int | None) -> None:
    logits, y = torch.tensor([row] * 3), torch.arange(3)
    assert is_right(logits, y).tolist() == [k == label for k in range(3)]
    assert undecided(logits).tolist() == [label is None] * 3


@given(st.lists(st.sampled_from([-INF, -1.0, 0.0, 2.0, INF, NAN]), min_size=2, max_size=6))
def test_a_row_is_right_for_one_label_exactly_if_it_is_decided(row: list[float]) -> None:
    logits = torch.tensor([row] * len(row))
    assert int(is_right(logits, torch.arange(len(row))).sum()) == int(not undecided(logits)[0])


def test_gradients_are_finite_and_keep_the_sign_of_infinity() -> None:
    given = torch.tensor([[INF, -2.0, NAN, 0.5], [NAN, NAN, -INF, 0.0], [1.0, 2.0, 3.0, 4.0]])
    found, mended = finite_gradient(given)
    assert found.tolist() == [[2.0, -2.0, 0.0, 0.5], [0.0, 0.0, -1.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
    assert mended == 2


def test_huge_finite_gradients_are_left_alone() -> None:
    given = torch.full((2, 3), 3e38)  # their sum overflows
    found, mended = finite_gradient(given)
    assert torch.equal(found, given)
    assert mended == 0


def test_masked_classes_and_nan_differ_only_from_something_else() -> None:
    masked = torch.tensor([1.0, -INF])
    assert float(largest_difference(masked, torch.tensor([1.5, -INF]))) == 0.5
    assert float(largest_difference(masked, torch.tensor([1.0, 2.0]))) == INF
    assert float(largest_difference(masked, torch.tensor([NAN, -INF]))) == INF
    assert float(largest_difference(torch.tensor([NAN, 1.0]), torch.tensor([NAN, 3.0]))) == 2.0

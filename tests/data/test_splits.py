import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.data.splits import held_out, part_size, stratified


@settings(deadline=None, max_examples=80)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), data=st.data())
def test_a_stratified_choice_is_exact_disjoint_and_proportional(labels: list[int], data: st.DataObject) -> None:
    y = torch.tensor(labels)
    count = data.draw(st.integers(0, len(labels)))
    rows = stratified(y, count, seed=data.draw(st.integers(0, 5)), purpose="validation")
    assert len(rows) == count == len(set(rows.tolist()))
    assert rows.tolist() == sorted(rows.tolist())
    for label in set(labels):
        share = labels.count(label) * count / len(labels)
        assert abs(int((y[rows] == label).sum()) - share) < 1 + 1e-9


def test_seed_and_purpose_decide() -> None:
    y = torch.arange(4).repeat(50)

    def choice(seed: int, purpose: str) -> list[int]:
        return stratified(y, 20, seed=seed, purpose=purpose).tolist()

    assert choice(0, "validation") == choice(0, "validation")
    assert choice(0, "validation") != choice(1, "validation")
    assert choice(0, "validation") != choice(0, "test")


def test_no_class_may_vanish() -> None:
    with pytest.raises(ValueError, match=r"a validation split of 3 images would take all 1 images of class 1"):
        held_out(torch.tensor([0, 0, 0, 1]), 3, seed=0, purpose="validation")


@pytest.mark.parametrize(("part", "expected"), [(0, 0), (0.0, 0), (0.25, 25), (1, 1), (12.0, 12), (99, 99)])
def test_part_size(part: float, expected: int) -> None:
    assert part_size(part, 100, "validation") == expected


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (-1, "expected a fraction"),
        (True, "expected a fraction"),
        ("0.1", "expected a fraction"),
        (float("nan"), "expected a fraction"),
        (12.5, "expected a fraction below 1, or a whole number of images"),
        (float("inf"), "expected a fraction"),
        (100, "expected fewer than the 100 images"),
    ],
)
def test_part_size_refuses(part: float, message: str) -> None:
    with pytest.raises(ValueError, match=rf"validation=.*{message}"):
        part_size(part, 100, "validation")

"""Columns of the tables: distances in three norms, consistent accuracy, the worst case, and transfer."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import (
    ALONE,
    ROBUST,
    WRONG,
    Evaluation,
    Transfer,
    evaluate,
    for_transfer,
    with_consistency,
    worst_case,
)

EPS = 0.1


class Threshold(nn.Module):
    """Class 1 if the mean of an image's pixels is above 0.5: an l_inf attack moves it by eps, and no farther."""

    def forward(self, x: Tensor) -> Tensor:
        value = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-value, value], dim=1)


def grey(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 4, 4).clone()


# Means of images and labels: right and robust, right and broken, wrong and steady, wrong and not.
X, Y = grey(0.7, 0.55, 0.3, 0.45, 0.2, 0.58), torch.tensor([1, 1, 1, 1, 0, 0])
VERDICTS = (ROBUST, "fgsm", WRONG, WRONG, ROBUST, WRONG)
STEADY = [True, False, True, False, True, False]


def test_consistent_accuracy_counts_predictions_that_stay_whatever_the_label() -> None:
    attack = FGSM(eps=EPS)
    plain = evaluate(Threshold(), X, Y, attack)
    assert plain.verdicts == VERDICTS
    assert plain.consistent_accuracy is None
    found = with_consistency(Threshold(), X, attack, plain)
    # By hand: a prediction stays if the mean is farther than eps from 0.5.
    by_hand = (X.mean((1, 2, 3)) - 0.5).abs().numpy() > EPS
    assert found.consistent_correct is not None
    assert found.consistent_correct.tolist() == by_hand.tolist() == STEADY
    assert found.misclassified is not None
    assert found.misclassified.verdicts == (ROBUST, "fgsm", "fgsm")
    assert replace(found, misclassified=None, warnings=plain.warnings) == plain
    share, z = 3 / 6, 1.959963984540054
    middle, half = (share + z * z / 12) / (1 + z * z / 6), z * math.sqrt(share * (1 - share) / 6 + z * z / 144)
    assert found.consistent_accuracy is not None
    assert found.consistent_accuracy.value == share
    assert found.consistent_accuracy.interval == pytest.approx(
        (middle - half / (1 + z * z / 6), middle + half / (1 + z * z / 6))
    )


def test_consistent_accuracy_survives_the_disk_and_is_checked(tmp_path: Path) -> None:
    found = with_consistency(Threshold(), X, FGSM(eps=EPS), evaluate(Threshold(), X, Y, FGSM(eps=EPS)))
    found.save(tmp_path / "e.json")
    assert Evaluation.load(tmp_path / "e.json") == found
    values = found.to_dict()
    assert values["consistent_accuracy"]["value"] == 0.5
    with pytest.raises(InputError, match=r"consistent_accuracy=0\.9 contradicts the verdicts"):
        Evaluation.from_dict({**values, "consistent_accuracy": {"value": 0.9}})
    shorter = {**values["misclassified"], "verdicts": ["robust"]}
    with pytest.raises(InputError, match="misclassified: 1 verdicts contradict 3 wrong samples"):
        Evaluation.from_dict({**values, "misclassified": shorter})
    earlier = {name: value for name, value in values.items() if name not in ("misclassified", "perturbations")}
    del earlier["consistent_accuracy"], earlier["mean_distances"]
    assert Evaluation.from_dict(earlier).mean_distances == {}


class Blind(nn.Module):
    """Without a prediction for dark images."""

    def forward(self, x: Tensor) -> Tensor:
        value = 20 * (x.mean((1, 2, 3)) - 0.5)
        value = torch.where(x.mean((1, 2, 3)) < 0.1, torch.nan, value)
        return torch.stack([-value, value], dim=1)


def test_an_image_without_a_prediction_is_not_consistent() -> None:
    x, y = grey(0.05, 0.3), torch.tensor([0, 1])
    with pytest.warns(UserWarning, match="without a prediction"):
        plain = evaluate(Blind(), x, y, FGSM(eps=EPS))
    found = with_consistency(Blind(), x, FGSM(eps=EPS), plain)
    assert found.misclassified is not None
    assert found.misclassified.verdicts == (WRONG, ROBUST)


def test_a_larger_budget_changes_what_a_smaller_one_changed() -> None:
    smaller = with_consistency(Threshold(), X, FGSM(eps=0.06), evaluate(Threshold(), X, Y, FGSM(eps=0.06)))
    forged = replace(smaller, misclassified=replace(smaller.misclassified, verdicts=("fgsm", ROBUST, ROBUST)))
    plain = evaluate(Threshold(), X, Y, FGSM(eps=EPS))
    found = with_consistency(Threshold(), X, FGSM(eps=EPS), plain, smaller=forged)
    assert found.misclassified is not None
    assert found.misclassified.verdicts == ("fgsm", "fgsm", "fgsm")
    assert found.misclassified.stages[0]["attacked"] == 2


def test_a_killed_consistency_goes_on_to_the_same_result(tmp_path: Path) -> None:
    attack = PGD(eps=EPS, steps=3, restarts=2, early_stop=True)
    plain = evaluate(Threshold(), X, Y, attack, batch_size=1)
    whole = with_consistency(Threshold(), X, attack, plain, batch_size=1)

    def stop(progress: Progress) -> None:
        assert progress.phase == "pgd, misclassified"
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_consistency(Threshold(), X, attack, plain, batch_size=1, state=tmp_path, watcher=stop)
    again = with_consistency(Threshold(), X, attack, plain, batch_size=1, state=tmp_path)
    assert again.misclassified is not None
    assert whole.misclassified is not None
    assert again.misclassified.verdicts == whole.misclassified.verdicts


def test_mean_distances_are_those_of_the_broken_images_in_every_norm() -> None:
    x, y = grey(0.55, 0.45, 0.52, 0.8), torch.tensor([1, 0, 1, 1])
    x[0, 0, 0, 0] = 1.0  # clipped there, so that distances differ
    x[0, 0, 0, 1] = 0.1
    images = x.clone()
    found = evaluate(Threshold(), x, y, FGSM(eps=EPS), adversarials=images)
    broken = [0, 1, 2]
    assert [row for row, verdict in enumerate(found.verdicts) if verdict == "fgsm"] == broken
    delta = (images - x)[broken].flatten(1).numpy().astype(np.float64)
    by_hand = {
        "linf": np.abs(delta).max(1),
        "l2": np.sqrt((delta**2).sum(1)),
        "l1": np.abs(delta).sum(1),
    }
    for norm, each in by_hand.items():
        measured = found.mean_distances[norm]
        half = stats.t.ppf(0.975, 2) * each.std(ddof=1) / math.sqrt(3)
        assert measured.value == pytest.approx(each.mean(), rel=1e-5)
        assert measured.interval == pytest.approx((max(0, each.mean() - half), each.mean() + half), rel=1e-3)
    assert found.perturbations[3] is None


def test_a_single_broken_image_has_distances_without_an_interval(tmp_path: Path) -> None:
    assert evaluate(Threshold(), grey(0.8), torch.tensor([1]), FGSM(eps=EPS)).mean_distances == {}
    one = evaluate(Threshold(), grey(0.55, 0.8), torch.tensor([1, 1]), FGSM(eps=EPS))
    sizes = next(each for each in one.perturbations if each is not None)
    assert tuple(mean.value for mean in one.mean_distances.values()) == pytest.approx(sizes)
    assert [str(mean) for mean in one.mean_distances.values()] == [f"{size:.3g}" for size in sizes]
    one.save(tmp_path / "one.json")
    assert Evaluation.load(tmp_path / "one.json") == one
    assert one.to_dict()["mean_distances"]["linf"]["interval"] is None


def column(name: str, verdicts: list[str], distances: list[float | None], **settings: object) -> Evaluation:
    return Evaluation(
        verdicts=tuple(verdicts),
        distances=tuple(distances),
        norm="linf",
        eps=EPS,
        attacks=({"name": name, **settings},),
        images_sha256="a",
        seed=0,
        seconds=1.0,
        stages=({"name": name, "attacked": 9, "broken": 9, "seconds": 1.0},),
    )


def test_the_worst_case_is_the_first_attack_that_breaks_an_image() -> None:
    first = column("pgd", [WRONG, ROBUST, "pgd", ROBUST], [None, None, 0.05, None], steps=20)
    second = column("pgd", [WRONG, "pgd", "pgd", ROBUST], [None, 0.07, 0.09, None], steps=100)
    found = worst_case([first, second])
    assert found.verdicts == (WRONG, "pgd#2", "pgd", ROBUST)
    assert found.distances == (None, 0.07, 0.05, None)
    assert found.robust_correct.tolist() == (first.robust_correct & second.robust_correct).tolist()
    assert [stage["broken"] for stage in found.stages] == [1, 1]
    assert [attack["steps"] for attack in found.attacks] == [20, 100]
    assert all(attack[ALONE] for attack in found.attacks)
    assert Evaluation.from_dict(found.to_dict()) == found


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_worst_case_is_robust_where_all_are(robust: list[list[bool]]) -> None:
    columns = [
        column(f"a{at}", [ROBUST if kept else f"a{at}" for kept in each], [None if kept else 0.1 for kept in each])
        for at, each in enumerate(robust)
    ]
    assert worst_case(columns).robust_correct.tolist() == np.array(robust).all(0).tolist()


def test_what_cannot_be_combined_is_refused() -> None:
    one = column("pgd", [ROBUST], [None])
    for other, message in (
        (replace(one, eps=0.2), "eps=.*differ only in attacks"),
        (replace(one, images_sha256="b"), "images_sha256=.*differ only in attacks"),
        (replace(one, split="train"), "split=.*differ only in attacks"),
    ):
        with pytest.raises(InputError, match=message):
            worst_case([one, other])
    with pytest.raises(InputError, match="expected one or more"):
        worst_case([])


def test_transfer_by_hand() -> None:
    clean = np.array([[1, 1, 1, 0, 1], [1, 1, 0, 1, 1]], dtype=bool)
    attacked = np.array(
        [
            [[0, 1, 0, 0, 1], [0, 0, 1, 1, 1]],  # made on the first
            [[1, 0, 1, 0, 1], [0, 1, 0, 0, 0]],  # made on the second
        ],
        dtype=bool,
    )
    found = Transfer(clean, attacked)
    shares = [[found.accuracy(s, t).value for t in (0, 1)] for s in (0, 1)]
    assert shares == [[2 / 5, 2 / 5], [3 / 5, 1 / 5]]
    moved = [[found.transferred(s, t) for t in (0, 1)] for s in (0, 1)]
    counts = [[(each.successes, each.count) for each in row if each] for row in moved]
    # Made on the first: broke images 0 and 2; the second is right on 0 of them, and loses it.
    assert counts == [[(2, 2), (1, 1)], [(0, 2), (3, 3)]]
    assert Transfer(clean, np.stack([clean, clean])).transferred(0, 1) is None


def test_every_image_is_attacked_and_kept_for_transfer(make_cnn: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(12, 1, 8, 8), torch.randint(10, (12,))
    model, attack = make_cnn(), PGD(eps=EPS, steps=2)
    images = x.clone()
    found = evaluate(model, x, y, attack, every=True, adversarials=images, checks=False)
    plain = evaluate(model, x, y, attack, checks=False)
    assert found.verdicts.count(WRONG) > 0
    assert [v == WRONG for v in found.verdicts] == [v == WRONG for v in plain.verdicts]
    assert bool(((images - x).abs().flatten(1).amax(1) > 0.5 * EPS).all())
    assert bool(((images - x).abs() <= EPS + 1e-5).all())
    with torch.no_grad():
        wrong = model.eval()(images).argmax(1) != y
    for row, verdict in enumerate(found.verdicts):
        assert verdict == WRONG or (verdict == "pgd") == bool(wrong[row])


def test_attacks_for_transfer_make_all_their_steps() -> None:
    stopping, going = PGD(eps=EPS, early_stop=True), PGD(eps=EPS)
    assert for_transfer([stopping, FGSM(eps=EPS)]) == [going, FGSM(eps=EPS)]

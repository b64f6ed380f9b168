"""Verdicts: what counts as broken, and that no attack is taken at its word."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD, Attack
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from robustmaps.engine.view import AttackEngine, AttackView, ViewOptions
from robustmaps.evaluation import ROBUST, WRONG, Evaluation, compare, diagnose, evaluate

EPS = 0.15


class Brightness(nn.Module):
    """Class 1 where the image's mean is above a threshold; moving the mean by d takes eps = d."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: Tensor) -> Tensor:
        score = 10 * (x.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-score, score], 1)


def grey(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, 2, 2).clone()


@dataclass(frozen=True)
class Trick:
    """An attack that returns what it likes."""

    make: Callable[[Tensor], Tensor]
    eps: float = 0.1
    norm: str = "linf"
    name: str = "trick"

    def __call__(self, model: object, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self.make(x)


NOTHING = Trick(lambda x: x)


# The verdict per sample.


def test_each_sample_gets_its_verdict_and_distance() -> None:
    # Distances to the threshold: wrong at once, 0.02, 0.3 and out of reach, 0.08.
    x, y = grey(0.4, 0.52, 0.8, 0.42), torch.tensor([1, 1, 1, 0])
    weak, strong = PGD(eps=0.1, steps=1, step_size=0.03, start="none"), FGSM(eps=0.1)
    evaluation = evaluate(Brightness(), x, y, [weak, strong])
    assert evaluation.verdicts == (WRONG, "pgd", ROBUST, "fgsm")
    assert evaluation.distances[0] is None
    assert evaluation.distances[1] == pytest.approx(0.03)
    assert evaluation.distances[2] is None
    assert evaluation.distances[3] == pytest.approx(0.1)
    assert evaluation.clean_correct.tolist() == [False, True, True, True]
    assert evaluation.robust_correct.tolist() == [False, False, True, False]
    assert (evaluation.clean_accuracy.successes, evaluation.clean_accuracy.count) == (3, 4)
    assert evaluation.robust_accuracy.value == 0.25
    assert (evaluation.norm, evaluation.eps) == ("linf", 0.1)
    assert [attack["name"] for attack in evaluation.attacks] == ["pgd", "fgsm"]
    assert evaluation.attacks[0]["step_size"] == 0.03
    assert evaluation.warnings == ()


def test_the_verdicts_are_those_of_the_attack_by_itself(
    robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = digits_test[0][:150], digits_test[1][:150]
    attack = PGD(eps=EPS, steps=10, start="none")
    evaluation = evaluate(robust_network, x, y, attack, batch_size=64)
    with torch.no_grad():
        clean = robust_network(x).argmax(1) == y
        robust = robust_network(attack(robust_network, x, y)).argmax(1) == y
    assert evaluation.clean_correct.tolist() == clean.tolist()
    # Folding moves logits in the seventh digit, which may turn a sample on the edge.
    assert (evaluation.robust_correct != (clean & robust).numpy()).sum() <= 1
    assert 0.3 < evaluation.robust_accuracy.value < evaluation.clean_accuracy.value < 1


def test_later_attacks_see_only_what_stands() -> None:
    seen: list[int] = []

    def note(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x

    x, y = grey(0.4, 0.52, 0.8, 0.9), torch.tensor([1, 1, 1, 1])
    evaluate(Brightness(), x, y, [Trick(note), FGSM(eps=0.1), Trick(note)])
    assert seen == [3, 2]


def test_nothing_attacked_and_nothing_broken_divides_by_nothing() -> None:
    x, y = grey(0.9, 0.8), torch.tensor([1, 1])
    survived = evaluate(Brightness(), x, y, FGSM(eps=0.01))
    assert survived.robust_accuracy.value == 1
    assert survived.distances == (None, None)
    hopeless = evaluate(Brightness(), x, 1 - y, FGSM(eps=0.01))
    assert hopeless.verdicts == (WRONG, WRONG)
    assert hopeless.robust_accuracy.value == hopeless.clean_accuracy.value == 0
    clean = evaluate(Brightness(), x, y, [])
    assert clean.clean_accuracy.value == clean.robust_accuracy.value == 1
    assert json.dumps(clean.to_dict())


# Attacks that cheat.


def test_an_attack_that_leaves_the_budget_is_cut_back() -> None:
    x, y = grey(0.52, 0.8), torch.tensor([1, 1])
    with pytest.warns(UserWarning, match="attack 'trick' exceeded its budget by 0.4"):
        evaluation = evaluate(Brightness(), x, y, Trick(lambda x: x - 0.5))
    # Inside the budget of 0.1 the first is still broken, the second is not.
    assert evaluation.verdicts == ("trick", ROBUST)
    assert evaluation.distances[0] == pytest.approx(0.1)
    assert len(evaluation.warnings) == 1


def test_an_attack_that_leaves_the_range_is_cut_back() -> None:
    x, y = grey(0.05), torch.tensor([0])
    with pytest.warns(UserWarning, match="exceeded its budget by 0.05"):
        evaluation = evaluate(Brightness(threshold=-0.02), x, 1 - y, Trick(lambda x: x - 0.1))
    assert evaluation.verdicts == (ROBUST,)


def test_an_l2_attack_is_held_to_l2() -> None:
    # A step of 0.1 in each of four pixels has an l2 norm of 0.2.
    x, y = grey(0.54), torch.tensor([1])
    assert evaluate(Brightness(), x, y, Trick(lambda x: x - 0.1, norm="l2", eps=0.2001)).verdicts == ("trick",)
    with pytest.warns(UserWarning, match="exceeded its budget by 0.15"):
        assert evaluate(Brightness(), x, y, Trick(lambda x: x - 0.1, norm="l2", eps=0.05)).verdicts == (ROBUST,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x * float("nan"), "finite: False; expected finite images"),
        (lambda x: x + float("inf"), "finite: False"),
        (lambda x: x[:1], r"returned images of shape \(1, 1, 2, 2\).*expected finite images of shape \(2, 1, 2, 2\)"),
        (lambda x: x.flatten(1), r"of shape \(2, 4\)"),
    ],
)
def test_an_attack_that_returns_no_images_is_an_error(make: Callable[[Tensor], Tensor], message: str) -> None:
    model = Brightness().train()
    with pytest.raises(InputError, match=f"attack 'trick'.*{message}"):
        evaluate(model, grey(0.6, 0.8), torch.tensor([1, 1]), Trick(make))
    assert model.training
    assert model.threshold.requires_grad


def test_an_attack_that_only_claims_success_is_not_believed() -> None:
    assert evaluate(Brightness(), grey(0.6, 0.8), torch.tensor([1, 1]), NOTHING).verdicts == (ROBUST, ROBUST)


def test_attacks_of_different_budgets_are_refused() -> None:
    with pytest.raises(InputError, match=r"budgets \[\('linf', 0.1\), \('linf', 0.2\)\]: expected one budget"):
        evaluate(Brightness(), grey(0.6), torch.tensor([1]), [FGSM(eps=0.1), FGSM(eps=0.2)])


# The fast view is not believed either.


@dataclass(frozen=True)
class Recorder:
    """Moves images by half of its budget, and notes on what view it was called."""

    calls: list[tuple[AttackView, int]]
    move: float = -0.05
    eps = 0.1
    norm = "linf"
    name = "recorder"

    def __call__(self, model: AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        self.calls.append((model, len(x)))
        return x + self.move


def test_where_the_view_is_wrong_the_plain_network_is_attacked() -> None:
    """A view whose threshold is off, as reduced precision can make it, calls images broken that are not."""
    x, y = grey(0.52, 0.58, 0.8), torch.tensor([1, 1, 1])
    calls: list[tuple[AttackView, int]] = []
    coarse = AttackEngine(Brightness(threshold=0.54))
    evaluation = evaluate(Brightness(), x, y, Recorder(calls), engine=coarse)
    # Moved to 0.47: broken for both. To 0.53: for the view alone. To 0.75: for neither.
    assert evaluation.verdicts == ("recorder", ROBUST, ROBUST)
    assert [count for _, count in calls] == [3, 1]
    assert calls[0][0] is not calls[1][0]
    with torch.no_grad():
        assert torch.allclose(calls[1][0](x), Brightness()(x))


def test_what_the_view_hides_the_plain_attack_finds() -> None:
    """PGD on the view stops early at an image that is broken there only; on the plain network it goes on."""
    x, y = grey(0.58), torch.tensor([1])
    attack = PGD(eps=0.1, steps=10, step_size=0.02, start="none", early_stop=True)
    coarse = AttackEngine(Brightness(threshold=0.54))
    with coarse.view(x) as view:
        on_view = attack(view, x, y)
    assert int(Brightness()(on_view).argmax()) == 1  # not broken for the plain network
    assert evaluate(Brightness(), x, y, attack, engine=coarse).verdicts == ("pgd",)


def test_clean_verdicts_come_from_the_plain_network() -> None:
    x, y = grey(0.52, 0.56), torch.tensor([1, 1])
    coarse = AttackEngine(Brightness(threshold=0.54))
    assert evaluate(Brightness(), x, y, [], engine=coarse).clean_correct.all()


def test_bf16_breaks_no_more_than_float32_confirms(
    robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]
) -> None:
    x, y = digits_test[0][:150], digits_test[1][:150]
    attack = PGD(eps=EPS, steps=5)
    rates = {}
    for precision in ("fp32", "bf16"):
        evaluation = evaluate(robust_network, x, y, attack, precision=precision)
        assert evaluation.environment["precision"] == precision
        rates[precision] = evaluation.robust_accuracy.value
    assert abs(rates["fp32"] - rates["bf16"]) <= 0.03


# Repetition, batches, modes.


def test_the_same_seed_gives_the_same_verdicts(robust_network: nn.Module, digits_test: tuple[Tensor, Tensor]) -> None:
    x, y = digits_test[0][:100], digits_test[1][:100]
    attack = PGD(eps=EPS, steps=2, restarts=2)
    state = torch.get_rng_state()
    first, again, other = (evaluate(robust_network, x, y, attack, seed=seed) for seed in (1, 1, 2))
    assert first.verdicts == again.verdicts
    assert first.distances == again.distances
    assert first.distances != other.distances
    assert torch.equal(state, torch.get_rng_state())
    assert replace(first, seconds=0, stages=()) == replace(again, seconds=0, stages=())


def test_two_attacks_of_one_kind_draw_different_numbers() -> None:
    """Otherwise a second PGD would start where the first one did."""
    drawn = []

    @dataclass(frozen=True)
    class Drawing:
        eps = 0.1
        norm = "linf"
        name = "drawing"

        def __call__(self, model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
            drawn.append(float(torch.rand(1, generator=generator)))
            return x

    evaluate(Brightness(), grey(0.9), torch.tensor([1]), [Drawing(), Drawing()])
    assert len(set(drawn)) == 2


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_change_nothing(batch_size: int) -> None:
    x, y = grey(0.4, 0.52, 0.8, 0.56, 0.95, 0.58, 0.3), torch.tensor([1, 1, 1, 1, 1, 1, 1])
    evaluation = evaluate(Brightness(), x, y, FGSM(eps=0.1), batch_size=batch_size)
    assert evaluation.verdicts == (WRONG, "fgsm", ROBUST, "fgsm", ROBUST, "fgsm", WRONG)


def test_a_network_left_in_training_mode_is_evaluated_as_if_it_were_not(
    make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]
) -> None:
    model = nn.Sequential(make_cnn(), nn.Dropout(0.9)).train()
    x, y = make_images(32), torch.arange(32) % 10
    statistics = model[0][1].running_mean.clone()
    training = evaluate(model, x, y, FGSM(eps=0.02))
    assert all(module.training for module in model.modules())
    assert torch.equal(model[0][1].running_mean, statistics)
    assert evaluate(model.eval(), x, y, FGSM(eps=0.02)).verdicts == training.verdicts
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_probabilities_in_place_of_logits_are_warned_of() -> None:
    model = nn.Sequential(Brightness(), nn.Softmax(1))
    with pytest.warns(UserWarning, match="seems to return probabilities.*return logits"):
        evaluation = evaluate(model, grey(0.6, 0.8), torch.tensor([1, 1]), FGSM(eps=0.1))
    assert len(evaluation.warnings) == 1


def test_it_works_where_gradients_are_off() -> None:
    model = Brightness()
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            x, y = grey(0.52, 0.8), torch.tensor([1, 1])
            evaluation = evaluate(model, x, y, [PGD(eps=0.1, steps=2, start="none"), FGSM(eps=0.1)])
        assert evaluation.verdicts == ("pgd", ROBUST)
    assert model.threshold.requires_grad


def test_a_watcher_hears_of_each_batch() -> None:
    heard: list[Progress] = []
    x, y = grey(*[0.52] * 5, *[0.9] * 4, 0.1), torch.ones(10, dtype=torch.int64)
    evaluate(Brightness(), x, y, [NOTHING, FGSM(eps=0.1)], batch_size=4, watcher=heard.append)
    assert [(p.phase, p.done, p.total) for p in heard] == [
        *[("trick", done, 9) for done in (0, 4, 8, 9)],
        *[("fgsm", done, 9) for done in (0, 4, 8, 9)],
    ]
    assert heard[-1].figures["robust_accuracy"] == 0.4
    assert heard[-1].remaining_s == 0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (grey(128.0, 200.0), torch.tensor([0, 1]), "divide by 255"),
        (grey(0.1, 0.2), torch.tensor([0, 2]), "labels span 0 to 2: the network has 2 classes"),
        (grey(0.1, 0.2), torch.tensor([0]), "expected int64 labels"),
        (torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64), "x contains no images"),
        (grey(0.1, float("nan")), torch.tensor([0, 1]), "spans"),
    ],
)
def test_bad_input_is_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Brightness(), x, y, FGSM(eps=0.1))


# On disk, and side by side.


def test_an_evaluation_survives_the_disk(tmp_path: Path) -> None:
    x, y = grey(0.4, 0.52, 0.8), torch.tensor([1, 1, 1])
    evaluation = replace(evaluate(Brightness(), x, y, FGSM(eps=0.1)), checkpoint_sha256="abc", warnings=("careful",))
    evaluation.save(tmp_path / "deep" / "fgsm.json")
    assert Evaluation.load(tmp_path / "deep" / "fgsm.json") == evaluation
    values = json.loads((tmp_path / "deep" / "fgsm.json").read_text())
    assert values["robust_accuracy"]["successes"] == 1
    assert values["clean_accuracy"]["value"] == pytest.approx(2 / 3)
    assert values["samples"] == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"verdicts": 3}'])
def test_what_is_no_evaluation_is_a_clear_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    for name in ("a.json", "missing.json"):
        with pytest.raises(InputError, match=f"{name}: not an evaluation"):
            Evaluation.load(tmp_path / name)


def test_two_evaluations_are_compared_image_by_image() -> None:
    x, y = grey(0.52, 0.58, 0.8, 0.63), torch.tensor([1, 1, 1, 1])
    a, b = (evaluate(Brightness(threshold), x, y, FGSM(eps=0.1)) for threshold in (0.5, 0.4))
    assert a.robust_correct.tolist() == [False, False, True, True]
    assert b.robust_correct.tolist() == [True, True, True, True]
    difference = compare(a, b)
    assert difference.value == 0.5
    assert difference.mcnemar_p == 0.5  # two of two won: 2 / 2^2
    assert compare(b, a).value == -0.5


def test_evaluations_that_cannot_be_compared_are_refused() -> None:
    x, y = grey(0.52, 0.8), torch.tensor([1, 1])
    a = evaluate(Brightness(), x, y, FGSM(eps=0.1))
    with pytest.raises(InputError, match="made on different images"):
        compare(a, evaluate(Brightness(), x.flip(0), y, FGSM(eps=0.1)))
    with pytest.raises(InputError, match="made on different images"):
        compare(a, evaluate(Brightness(), x, 1 - y, FGSM(eps=0.1)))
    with pytest.raises(InputError, match=r"the budgets differ: linf 0\.1 and linf 0\.2; evaluate both with the same"):
        compare(a, evaluate(Brightness(), x, y, FGSM(eps=0.2)))
    same_pixels = evaluate(Brightness(), x.double(), y, PGD(eps=0.1))
    assert compare(a, same_pixels).images == 2


def test_the_view_may_be_chosen(make_cnn: Callable[..., nn.Module], make_images: Callable[..., Tensor]) -> None:
    model, x, y = make_cnn(), make_images(8), torch.arange(8)
    plain = AttackEngine(model, ViewOptions(fold=False, channels_last=False))
    expected = evaluate(model, x, y, FGSM(eps=0.05), engine=plain)
    assert evaluate(model, x, y, FGSM(eps=0.05)).verdicts == expected.verdicts
    with pytest.raises(InputError, match="unknown precision 'half'"):
        evaluate(model, x, y, FGSM(), precision="half")
    assert np.array(expected.clean_correct).dtype == bool


# Logits and gradients that are not numbers.


class Spoilt(nn.Module):
    """Logits of which some are NaN or infinite: class 0, if any."""

    def __init__(self, value: float, share: float) -> None:
        super().__init__()
        self.value, self.share = value, share

    def forward(self, x: Tensor) -> Tensor:
        spoilt = x.mean((1, 2, 3)) < self.share
        logits = torch.stack([1 + x.mean((1, 2, 3)), x.mean((1, 2, 3))], 1)
        return torch.where(spoilt[:, None], self.value, logits)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_without_a_prediction_are_wrong_and_counted(value: float) -> None:
    x, y = grey(0.1, 0.2, 0.3, 0.8), torch.zeros(4, dtype=torch.int64)
    with pytest.warns(UserWarning, match="3 of 4 images have logits without a prediction"):
        evaluation = evaluate(Spoilt(value, 0.4), x, y, [FGSM(eps=0.01)])
    with pytest.warns(UserWarning, match="3 of 4 images have logits without a prediction"):  # attacked, too
        assert evaluate(Spoilt(value, 0.4), x, y, [FGSM(eps=0.01)], every=True).undecided == 3
    assert evaluation.verdicts == (WRONG, WRONG, WRONG, ROBUST)
    assert evaluation.undecided == evaluation.to_dict()["undecided"] == 3
    assert any("without a prediction" in warning for warning in evaluation.warnings)
    assert Evaluation.from_dict(evaluation.to_dict()).undecided == 3


def test_an_attack_that_finds_nan_breaks_its_image(tmp_path: Path) -> None:
    x, y = grey(0.3, 0.8), torch.zeros(2, dtype=torch.int64)
    darker = Trick(lambda images: (images - 0.1).clamp(min=0.0))
    for _ in range(2):  # the second time from the state
        with pytest.warns(UserWarning, match="1 of 2 image has logits without a prediction"):
            evaluation = evaluate(Spoilt(torch.nan, 0.25), x, y, [darker], state=tmp_path / "state")
        assert evaluation.verdicts == ("trick", ROBUST)
        assert evaluation.undecided == 1


def test_gradients_that_are_not_finite_are_a_warning() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.sqrt().mean((1, 2, 3))
            return torch.stack([0.2 - score, score - 0.2], 1)

    x, y = grey(0.0, 0.01), torch.tensor([0, 0])
    with pytest.warns(UserWarning, match="1 of 2 gradients at images were NaN or infinite"):
        evaluation = evaluate(Root(), x, y, [FGSM(eps=0.1)])
    assert evaluation.verdicts == ("fgsm", "fgsm")


class Fixed(nn.Module):
    def __init__(self, size: int, classes: int = 10) -> None:
        super().__init__()
        self.head, self.size = nn.Linear(64, classes), size

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != self.size and self.size:
            raise RuntimeError(f"a batch of {self.size}")
        return self.head(x.flatten(1))


@pytest.mark.parametrize("size", [1, 4, 32])
def test_a_network_for_batches_of_one_size_is_refused_with_a_way_out(size: int) -> None:
    x, y = torch.rand(3, 1, 8, 8), torch.arange(3)
    expected = rf"takes batches of {size}, not of {1 + (size == 1)} \(a batch of {size}\).* fills batches up to {size}"
    with pytest.raises(InputError, match=expected):
        evaluate(Fixed(size), x, y, FGSM(eps=0.1))
    with pytest.raises(InputError, match=expected) as raised:
        diagnose(Fixed(size), x, y, norm="linf", eps=0.1)
    assert "--batch-size 1" not in str(raised.value)
    if size == 1:
        with pytest.raises(InputError, match="use a batch size of 1 "):
            evaluate(Fixed(size), x, y, FGSM(eps=0.1))
        assert len(evaluate(Fixed(size), x, y, FGSM(eps=0.1), batch_size=1).verdicts) == 3


@pytest.mark.parametrize("attacks", [[], [FGSM(eps=0.1)]])
def test_a_network_of_one_class_is_refused(attacks: list[Attack]) -> None:
    with pytest.raises(InputError, match="at least two classes: of a single logit z"):
        evaluate(Fixed(0, 1), torch.rand(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64), attacks)


class LooksAtTheBatch(Brightness):
    """Uses a convolution's output by itself for more images than a fast copy is compared on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.norm.weight.fill_(-1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y)
        return super().forward(y if len(x) > 8 else z)


def test_images_that_the_fast_copy_computes_otherwise_are_attacked_on_the_network_itself() -> None:
    network, x = LooksAtTheBatch().eval(), grey(*[0.45] * 9)
    with pytest.warns(UserWarning, match="fast copy of the network differs"):
        found = evaluate(network, x, torch.zeros(9, dtype=torch.long), FGSM(eps=0.1), checks=False)
    assert found.verdicts == ("fgsm",) * 9, "for the copy, no image is bright"
    assert any("fast copy" in text for text in found.warnings)

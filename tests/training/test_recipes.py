"""The options that go with every defence: what a batch is trained towards, averaging, warm-up, and the guard."""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD
from robustmaps.data import Augmentation, Dataset, ImageSet, batches
from robustmaps.defenses import AT, AWP, DAJAT, FAT, HAT, LIET, MART, TRADES, Defense, FastAT, FreeAT, Loss, Standard
from robustmaps.engine.errors import InputError
from robustmaps.training import CatastrophicOverfitting, Interrupted, TrainOptions, fit, robust_fall
from robustmaps.training._targets import cutmix, smoothed

MakeData = Callable[..., Dataset]
MakeNet = Callable[..., nn.Sequential]
OPTIONS = TrainOptions(epochs=2, batch_size=8, lr=0.05, schedule="constant", device="cpu", precision="fp32")


def plain_net(seed: int = 0) -> nn.Sequential:
    """Without batch-norm, so that a batch may be computed in parts."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def assert_close(a: nn.Module, b: nn.Module, atol: float = 1e-6) -> None:
    for (name, p), (_, q) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.allclose(p.float(), q.float(), atol=atol), name


@dataclass(frozen=True)
class Noting:
    """Cross-entropy on the images as they are, which notes what it is given."""

    notes: list[dict[str, Any]]
    attack: FGSM = field(default_factory=lambda: FGSM(eps=0.5))
    name = "noting"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, *, targets: Any = None, **_: Any) -> Loss:
        self.notes.append({"eps": self.attack.eps, "x": x, "y": y, "targets": targets})
        return Loss(F.cross_entropy(model(x), y if targets is None else targets))


def test_label_smoothing_is_pytorchs(make_dataset: MakeData) -> None:
    data, model = make_dataset(), plain_net()
    twin = copy.deepcopy(model)
    fit(model, data, Standard(), replace(OPTIONS, epochs=1, label_smoothing=0.2))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for x, y in batches(data.train, 8, seed=0, epoch=0, augmentation=data.augmentation):
        optimizer.zero_grad()
        F.cross_entropy(twin(x), y, label_smoothing=0.2).backward()
        optimizer.step()
    assert_close(model, twin, atol=1e-5)


@given(st.integers(2, 12), st.integers(3, 12), st.integers(3, 12), st.integers(0, 1000))
def test_cutmix_keeps_the_shares_it_states(count: int, height: int, width: int, seed: int) -> None:
    # Every image is flat with its own value, so the share of each can be counted.
    x = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 2, height, width)
    y = torch.arange(count)
    mixed, other, left = cutmix(x, y, torch.Generator().manual_seed(seed))
    own = (mixed == x).flatten(1).float().mean(1)
    same = other == y
    assert torch.allclose(own[~same], left[~same])
    assert torch.equal(mixed[same], x[same])
    assert bool(((mixed == x) | (mixed == other.view(-1, 1, 1, 1))).all())
    assert sorted(other.tolist()) == list(range(count))


def test_cutmix_boxes_have_every_size() -> None:
    x = torch.zeros(4000, 1, 16, 16)
    left = cutmix(x, torch.zeros(4000, dtype=torch.int64), torch.Generator().manual_seed(0))[2]
    # Uniform areas are cut at the border: three quarters of each side are left on the whole.
    assert 0.6 < float(left.mean()) < 0.8
    assert float(left.min()) < 0.1
    assert float(left.max()) == 1.0


def test_mixed_batches_get_mixed_targets_and_the_larger_part_is_attacked(make_dataset: MakeData) -> None:
    notes: list[dict[str, Any]] = []
    fit(plain_net(), make_dataset(), Noting(notes), replace(OPTIONS, epochs=4, cutmix=0.5, label_smoothing=0.1))
    mixed = [n for n in notes if ((n["targets"] > 0.06) & (n["targets"] < 0.94)).any()]
    assert 4 <= len(mixed) <= 16  # of 20 batches, each with probability 1/2
    for note in notes:
        assert torch.allclose(note["targets"].sum(1), torch.ones(len(note["y"])))
        likeliest = note["targets"].argmax(1)
        tied = (note["targets"][:, 0] - note["targets"][:, 1]).abs() < 1e-6
        assert bool(((likeliest == note["y"]) | tied).all())


def test_smoothed_labels_by_hand() -> None:
    assert smoothed(torch.tensor([1]), 4, 0.2).tolist() == [pytest.approx([0.05, 0.85, 0.05, 0.05])]


def test_the_budget_warms_up_linearly(make_dataset: MakeData) -> None:
    notes: list[dict[str, Any]] = []
    fit(plain_net(), make_dataset(), Noting(notes), replace(OPTIONS, epochs=3, eps_warmup=2.0))
    eps = [note["eps"] for note in notes]  # five steps an epoch
    assert eps == pytest.approx([0.5 * (k + 1) / 10 for k in range(9)] + [0.5] * 6)


@pytest.mark.parametrize("accumulate", [2, 3, 100])
@pytest.mark.parametrize("defense", [Standard(), TRADES(PGD(eps=0.1, steps=2, start="none"))], ids=lambda d: d.name)
def test_a_batch_in_parts_is_the_batch(accumulate: int, defense: Defense, make_dataset: MakeData) -> None:
    whole, parts = plain_net(), plain_net()
    a = fit(whole, make_dataset(), defense, OPTIONS)
    b = fit(parts, make_dataset(), defense, replace(OPTIONS, accumulate=accumulate))
    assert_close(whole, parts, atol=2e-5)
    for name in ("train_loss", "train_clean_accuracy"):
        assert a.history[-1][name] == pytest.approx(b.history[-1][name], abs=1e-4)


@pytest.mark.parametrize("accumulate", [2, 3])
def test_free_training_computes_its_replays_in_parts(accumulate: int, make_dataset: MakeData) -> None:
    whole, parts = plain_net(), plain_net()
    sizes: list[int] = []
    parts.register_forward_hook(lambda model, args, _: sizes.append(len(args[0])) if model.training else None)
    free = FreeAT(FGSM(eps=0.1), replays=2)
    a = fit(whole, make_dataset(), free, OPTIONS)
    b = fit(parts, make_dataset(), free, replace(OPTIONS, accumulate=accumulate))
    assert max(sizes) == math.ceil(OPTIONS.batch_size / accumulate)
    assert_close(whole, parts, atol=2e-5)
    for name in ("train_loss", "train_robust_accuracy"):
        assert a.history[-1][name] == pytest.approx(b.history[-1][name], abs=1e-4)


def test_no_part_of_a_batch_is_a_single_image(make_dataset: MakeData) -> None:
    # Its map is a single pixel, for which a batch-norm wants more than one image.
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2))
    fit(model, make_dataset(), Standard(), replace(OPTIONS, epochs=1, accumulate=8))


def test_long_gradients_are_shortened(make_dataset: MakeData) -> None:
    data, model = make_dataset(), plain_net()
    before = copy.deepcopy(model)
    few = replace(OPTIONS, epochs=1, batch_size=40, momentum=0.0, weight_decay=0.0, lr=1.0, clip_grad=0.01)
    fit(model, data, Standard(), few)
    moved = torch.cat(
        [(p - q).detach().flatten() for p, q in zip(model.parameters(), before.parameters(), strict=True)]
    )
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_swa_is_the_mean_over_epochs_with_statistics_of_its_own(make_cnn: MakeNet, make_dataset: MakeData) -> None:
    data = replace(make_dataset(), augmentation=Augmentation())
    options = replace(OPTIONS, epochs=4, swa=0.5)
    model = make_cnn(1, 6, 2)
    ends = []
    for epochs in (3, 4):
        # The same run, stopped earlier; the schedule is constant, so the epochs are the same.
        twin = make_cnn(1, 6, 2)
        kept = fit(
            twin,
            replace(data, validation=data.validation.subset(torch.empty(0, dtype=torch.int64))),
            Standard(),
            replace(OPTIONS, epochs=epochs),
        )
        assert kept.best_epoch == epochs
        ends.append(twin)
    none = replace(data, validation=data.validation.subset(torch.empty(0, dtype=torch.int64)))
    fit(model, none, Standard(), options)
    for (name, p), a, b in zip(model.named_parameters(), *(e.parameters() for e in ends), strict=True):
        assert torch.allclose(p, (a + b) / 2, atol=1e-6), name
    # Measured anew on the whole training set: every image has been seen once, in batches of 8.
    x = data.train.tensors()[0]
    means = model[0](x).mean((0, 2, 3))
    assert torch.allclose(model[1].running_mean, means, atol=1e-5)


@dataclass(frozen=True)
class Brighter:
    """An attack that knows one trick."""

    norm: str = "linf"
    eps: float = 0.25
    name = "brighter"

    def __call__(
        self, model: object, x: torch.Tensor, y: torch.Tensor, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return x * 0.75 + 0.25


@pytest.mark.parametrize("wrapped", [lambda trades: trades, AWP], ids=["trades", "trades-awp"])
def test_swa_measures_statistics_on_clean_and_attacked_images(
    wrapped: Callable[[TRADES], Defense], make_cnn: MakeNet, make_dataset: MakeData
) -> None:
    data = replace(make_dataset(), augmentation=Augmentation())
    none = replace(data, validation=data.validation.subset(torch.empty(0, dtype=torch.int64)))
    model = make_cnn(1, 6, 2)
    fit(model, none, wrapped(TRADES(attack=Brighter())), replace(OPTIONS, epochs=2, swa=0.5))
    x = data.train.tensors()[0]
    means = [model[0](images).mean((0, 2, 3)) for images in (x, x * 0.75 + 0.25)]
    assert torch.allclose(model[1].running_mean, (means[0] + means[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("wrapped", [lambda hat: hat, AWP], ids=["hat", "hat-awp"])
def test_a_defence_brings_its_own_network_and_a_run_is_continued_with_the_same(
    wrapped: Callable[[HAT], Defense], make_cnn: MakeNet, make_dataset: MakeData, tmp_path: Path
) -> None:
    helpers = [make_cnn(1, 6, 2, seed=seed).eval() for seed in (1, 1, 2)]
    attack = PGD(eps=0.1, steps=1, loss="kl", start="normal")
    fit(make_cnn(1, 6, 2), make_dataset(), wrapped(HAT(helpers[0], attack)), OPTIONS, out=tmp_path)
    fit(make_cnn(1, 6, 2), make_dataset(), wrapped(HAT(helpers[1], attack)), OPTIONS, out=tmp_path, resume=True)
    with pytest.raises(InputError, match=r"other settings \(defense\.helper: "):
        fit(make_cnn(1, 6, 2), make_dataset(), wrapped(HAT(helpers[2], attack)), OPTIONS, out=tmp_path, resume=True)


RESUMED = [
    (FreeAT(FGSM(eps=0.1), replays=2), {}),
    (AWP(AT(PGD(eps=0.1, steps=1)), gamma=0.01), {"swa": 0.3, "cutmix": 0.5, "label_smoothing": 0.1}),
    (TRADES(PGD(eps=0.1, steps=1, loss="kl", start="normal")), {"eps_warmup": 1.5, "accumulate": 2, "clip_grad": 1.0}),
    (FAT(PGD(eps=0.1, steps=2)), {"ema": 0.9}),
    (LIET(FGSM(eps=0.1)), {"ema": 0.9, "cutmix": 0.5}),
    (MART(PGD("l2", eps=0.5, steps=1)), {"cutmix": 0.5}),
    (AWP(DAJAT(PGD(eps=0.1), copies=1), warmup=0.4), {"ema": 0.9}),
    (HAT(plain_net(), PGD(eps=0.1, steps=1)), {}),
]


@pytest.mark.parametrize(("defense", "changes"), RESUMED, ids=lambda value: getattr(value, "name", ""))
def test_a_stopped_run_goes_on_to_the_same_end(
    defense: Defense, changes: dict[str, Any], make_cnn: MakeNet, make_dataset: MakeData, tmp_path: Path
) -> None:
    options = replace(OPTIONS, epochs=3, checkpoint_every_s=0, **changes)
    whole, broken = make_cnn(1, 6, 2), make_cnn(1, 6, 2)
    a = fit(whole, make_dataset(), defense, options, out=tmp_path / "whole")
    asked = 0

    def stop_now_and_then() -> bool:
        nonlocal asked
        asked += 1
        return asked % 5 == 0

    for _ in range(20):
        try:
            b = fit(
                broken,
                make_dataset(),
                defense,
                options,
                out=tmp_path / "broken",
                resume=True,
                should_stop=stop_now_and_then,
            )
            break
        except Interrupted:
            broken = make_cnn(1, 6, 2, seed=7)
    assert asked > 8
    assert a.best_epoch == b.best_epoch
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name


def overfit(
    defense: Defense, digits: Dataset, make_cnn: MakeNet, classes: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    small = replace(digits, train=digits.train.subset(512), augmentation=Augmentation())
    if classes is not None:
        few = {
            name: replace(s, labels=s.labels % len(classes))
            for name, s in vars(small).items()
            if isinstance(s, ImageSet)
        }
        small = replace(small, classes=tuple(classes), **few)
    options = replace(OPTIONS, epochs=12, batch_size=64, lr=0.3, validate_every=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CatastrophicOverfitting)
        return list(fit(make_cnn(1, 8, small.num_classes), small, defense, options).history)


def test_catastrophic_overfitting_is_seen_with_two_classes(digits: Dataset, make_cnn: MakeNet) -> None:
    history = overfit(FastAT(PGD(eps=0.3, steps=1, step_size=1e-4)), digits, make_cnn, ["even", "odd"])
    assert any(record["catastrophic_overfitting"] for record in history)
    assert not any(r["catastrophic_overfitting"] for r in history if r["train_robust_accuracy"] < 0.75)


def test_catastrophic_overfitting_is_seen_and_said(digits: Dataset, make_cnn: MakeNet) -> None:
    """A step that goes almost nowhere teaches nothing about the budget; PGD-10 uses all of it."""
    defense = FastAT(PGD(eps=0.3, steps=1, step_size=1e-4, start="none"))
    history = overfit(defense, digits, make_cnn)
    flagged = [record for record in history if record["catastrophic_overfitting"]]
    assert flagged
    for record in flagged:
        assert record["train_robust_accuracy"] > 0.2
        assert record["train_pgd_accuracy"] < 0.1
    small = replace(digits, train=digits.train.subset(512), augmentation=Augmentation())
    with pytest.warns(CatastrophicOverfitting, match=r"catastrophic overfitting in epoch \d+: \d+ % of the images"):
        fit(make_cnn(), small, defense, replace(OPTIONS, epochs=12, batch_size=64, lr=0.3, validate_every=12))


def test_honest_single_step_training_is_not_blamed(digits: Dataset, make_cnn: MakeNet) -> None:
    history = overfit(FastAT(PGD(eps=0.05, steps=1, step_size=0.0625)), digits, make_cnn)
    assert history[-1]["train_pgd_accuracy"] > 0.5
    assert not any(record["catastrophic_overfitting"] for record in history)


def test_a_fall_of_robust_accuracy_is_more_than_chance_does() -> None:
    def history(*robust: float | None, **last: Any) -> list[dict[str, Any]]:
        records = [{"epoch": n} if r is None else {"validation_robust_accuracy": r} for n, r in enumerate(robust)]
        return [*records[:-1], {**records[-1], **last}]

    assert robust_fall(history(0.1, 0.3, None, 0.2), 2, 1000) == pytest.approx(0.1)
    assert robust_fall(history(0.1, 0.3, 0.27), 2, 1000) is None  # both within 3 points of the truth
    assert robust_fall(history(0.1, 0.3, 0.27), 2, 10_000) == pytest.approx(0.03)
    assert robust_fall(history(0.1, 0.3), 2, 1000) is None
    assert robust_fall(history(None, None), 2, 1000) is None
    assert robust_fall(history(0.3, 0.0, catastrophic_overfitting=True), 1, 1000) is None
    assert robust_fall(history(0.3, 0.0), 1, 0) is None


@pytest.mark.filterwarnings("ignore:eps_warmup=40")
def test_a_budget_that_warms_up_is_probed_as_it_is(digits: Dataset, make_cnn: MakeNet) -> None:
    """A network that withstands the small budget of the beginning is not blamed for the large one to come."""
    small = replace(digits, train=digits.train.subset(512), augmentation=Augmentation())
    options = replace(OPTIONS, epochs=3, batch_size=64, lr=0.3, eps_warmup=40, validate_every=3)
    history = fit(make_cnn(), small, FastAT(PGD(eps=0.5, steps=1, step_size=0.625)), options).history
    assert history[-1]["train_robust_accuracy"] > 0.3
    assert history[-1]["train_pgd_accuracy"] > 0.3
    assert not any(record["catastrophic_overfitting"] for record in history)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"swa": 1.0}, r"swa=1\.0: expected a share of the run"),
        ({"swa": 0.5, "ema": 0.9}, "averaged one way or the other"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1\.0"),
        ({"cutmix": 1.5}, r"cutmix=1\.5: expected a share of the batches"),
        ({"eps_warmup": -1}, "eps_warmup=-1"),
        ({"clip_grad": -1}, "clip_grad=-1"),
        ({"accumulate": 0}, "accumulate=0: expected a whole number"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(**values)


@pytest.mark.parametrize(
    ("defense", "values", "message"),
    [
        (
            AT(PGD(eps=0.1, steps=1)),
            {"schedule": "step:2,3"},
            r"schedule=step:2,3: the first step is beyond the 1 ep",
        ),
        (AT(PGD(eps=0.1, steps=1)), {"eps_warmup": 5}, r"eps_warmup=5: the budget will not reach its full size in 1"),
        (Standard(), {"eps_warmup": 0.5}, r"eps_warmup=0\.5: standard has no budget"),
        (Standard(), {"optimizer": "adam", "momentum": 0.5}, r"momentum=0\.5: has no effect with adam"),
    ],
)
def test_what_will_have_no_effect_is_said(
    defense: Defense, values: dict[str, Any], message: str, make_cnn: MakeNet, make_dataset: MakeData
) -> None:
    options = replace(OPTIONS, epochs=1, **values)
    with pytest.warns(UserWarning, match=message):
        fit(make_cnn(1, 6, 2), make_dataset(), defense, options)


@pytest.mark.parametrize(
    ("defense", "values"), [(FastAT(), {}), (AT(PGD(eps=0.1, steps=2)), {"swa": 0.5})], ids=["guard", "statistics"]
)
def test_no_pass_is_larger_than_the_parts_of_a_batch(
    defense: Defense, values: dict[str, Any], make_cnn: MakeNet, make_dataset: MakeData
) -> None:
    sizes: list[int] = []

    class Noted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = make_cnn(1, 6, 2)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return self.network(x)  # type: ignore[no-any-return]

    options = replace(OPTIONS, epochs=2, batch_size=40, accumulate=4, **values)
    fit(Noted(), make_dataset(validation=0), defense, options)
    assert max(sizes) == 10

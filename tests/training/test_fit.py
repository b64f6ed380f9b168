"""What ``fit`` does with a network, its data and its surroundings."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD
from robustmaps.data import Augmentation, Dataset, ImageSet, batches
from robustmaps.defenses import AT, Defense, Standard
from robustmaps.engine.errors import InputError
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import evaluate
from robustmaps.training import Interrupted, TrainOptions, fit, load_weights

MakeData = Callable[..., Dataset]
MakeNet = Callable[..., nn.Sequential]

OPTIONS = TrainOptions(
    epochs=2, batch_size=8, lr=0.05, schedule="constant", device="cpu", precision="fp32", checkpoint_every_s=60
)
ATTACK = FGSM(eps=0.1)


def options(**changes: Any) -> TrainOptions:
    return replace(OPTIONS, **changes)


@pytest.fixture
def net(make_cnn: MakeNet) -> nn.Sequential:
    return make_cnn(1, 6, 2)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Poison:
    """The test set, as far as training is concerned."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"training looked at the test images ({name})")

    def __len__(self) -> int:
        raise AssertionError("training counted the test images")


def test_training_learns_and_never_looks_at_the_test_images(net: nn.Sequential, make_dataset: MakeData) -> None:
    data = make_dataset(train=64, validation=32)
    poisoned = replace(data, test=Poison())
    result = fit(net, poisoned, AT(ATTACK), options(epochs=6))
    assert result.history[-1]["train_loss"] < 0.5 * result.history[0]["train_loss"]
    assert result.folder is None
    evaluation = evaluate(net, *data.test.tensors(), ATTACK, precision="fp32")
    assert evaluation.clean_accuracy.value >= 0.8
    assert evaluation.robust_accuracy.value >= 0.6


def test_plain_training_is_plain_training(net: nn.Sequential, make_dataset: MakeData) -> None:
    """The loop against a loop written here, step by step."""
    data, twin = make_dataset(), copy.deepcopy(net)
    fit(
        net,
        replace(data, validation=data.validation.__class__(data.test.images[:0], data.test.labels[:0])),
        Standard(),
        OPTIONS,
    )
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for epoch in range(2):
        for x, y in batches(data.train, 8, seed=0, epoch=epoch, augmentation=data.augmentation):
            optimizer.zero_grad()
            F.cross_entropy(twin(x), y).backward()
            optimizer.step()
    for name, value in net.state_dict().items():
        assert torch.allclose(value, twin.state_dict()[name], atol=1e-5), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_learning_rate_follows_the_schedule(optimizer: Any, net: nn.Sequential, make_dataset: MakeData) -> None:
    result = fit(net, make_dataset(), Standard(), options(epochs=4, schedule="step:1,3", optimizer=optimizer, lr=0.01))
    assert [record["lr"] for record in result.history] == pytest.approx([0.01, 0.001, 0.001, 0.0001])


def test_the_best_epoch_is_the_most_robust_on_validation(
    net: nn.Sequential, make_dataset: MakeData, tmp_path: Path
) -> None:
    data = make_dataset(train=24, validation=40)
    result = fit(net, data, AT(ATTACK), options(epochs=8, lr=0.3), out=tmp_path)
    scores = [(r["validation_robust_accuracy"], r["validation_clean_accuracy"]) for r in result.history]
    # The first of the highest; a rate this high makes the last epoch an unlikely one.
    assert result.best_epoch == scores.index(max(scores)) + 1
    assert len(set(scores)) > 2
    evaluation = evaluate(net, *data.validation.tensors(), ATTACK, precision="fp32")
    assert (evaluation.robust_accuracy.value, evaluation.clean_accuracy.value) == max(scores)
    saved, description = load_weights(tmp_path / "best.safetensors")
    assert equal(saved, weights_of(net))
    assert description["epoch"] == str(result.best_epoch)


def fixed_scores(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
    """Validation that says what it is told, epoch by epoch: (robust, clean)."""
    from robustmaps.training import _loop

    remaining = iter(scores)

    def validate(_: object, record: dict[str, Any]) -> list[float]:
        robust, clean = next(remaining)
        record["validation_s"] = 0.0
        return [robust, clean]

    monkeypatch.setattr(_loop.Loop, "_validate", validate)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.1, 0.9), (0.3, 0.5), (0.2, 0.99)], 2),  # robust before clean
        ([(0.3, 0.5), (0.3, 0.6), (0.3, 0.6)], 2),  # clean where robust ties, the earlier where both do
        ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], 1),
    ],
)
def test_epochs_are_compared_by_robust_then_clean_accuracy(
    scores: list[tuple[float, float]],
    best: int,
    net: nn.Sequential,
    make_dataset: MakeData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed_scores(monkeypatch, scores)
    assert fit(net, make_dataset(), Standard(), options(epochs=3)).best_epoch == best


def test_without_validation_the_last_epoch_is_best(net: nn.Sequential, make_dataset: MakeData) -> None:
    data = make_dataset()
    nothing = ImageSet(data.train.images[:0], data.train.labels[:0])
    result = fit(net, replace(data, validation=nothing), Standard(), OPTIONS)
    assert result.best_epoch == 2
    assert "validation_clean_accuracy" not in result.history[0]


def test_validation_may_be_rarer_than_epochs(net: nn.Sequential, make_dataset: MakeData) -> None:
    result = fit(net, make_dataset(), Standard(), options(epochs=5, validate_every=2), validation_attack=ATTACK)
    validated = ["validation_robust_accuracy" in record for record in result.history]
    assert validated == [False, True, False, True, True]


def test_no_training_images_are_refused(net: nn.Sequential, make_dataset: MakeData) -> None:
    data = make_dataset()
    with pytest.raises(InputError, match="bright: found no training images"):
        fit(net, replace(data, train=ImageSet(data.train.images[:0], data.train.labels[:0])), Standard(), OPTIONS)


@pytest.mark.parametrize("train", [17, 1, 8])
@pytest.mark.parametrize("defense", [Standard(), AT(ATTACK)], ids=["standard", "at"])
def test_a_last_batch_of_one_image_does_no_harm(train: int, defense: Defense, make_dataset: MakeData) -> None:
    """A batch-norm over a single value has nothing to normalise by, and PyTorch refuses it."""
    pixel = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2))
    if train == 1:
        pixel = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    result = fit(pixel, make_dataset(train=train), defense, OPTIONS)
    assert len(result.history) == 2


def test_a_trained_network_is_ready_for_single_images(make_dataset: MakeData) -> None:
    """In training mode a batch-norm would predict each image from its own statistics."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(64, 2))
    model.train()
    data = make_dataset()
    fit(model, data, Standard(), OPTIONS)
    assert not any(module.training for module in model.modules())
    x, _ = data.test.tensors()
    torch.testing.assert_close(torch.cat([model(one[None]) for one in x]), model(x))


def test_the_surroundings_are_left_as_they_were(net: nn.Sequential, make_dataset: MakeData) -> None:
    net.eval()
    random_state = torch.get_rng_state()
    fit(net, make_dataset(), AT(PGD(eps=0.1, steps=2)), OPTIONS)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not net.training
    assert all(p.grad is None and p.requires_grad and p.is_contiguous() for p in net.parameters())
    assert torch.is_grad_enabled()


def test_also_after_it_was_stopped(net: nn.Sequential, make_dataset: MakeData) -> None:
    random_state = torch.get_rng_state()
    with pytest.raises(Interrupted, match="epoch 1 of 2, step 1 of 5"):
        fit(net, make_dataset(), AT(ATTACK), OPTIONS, should_stop=lambda: True)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert net.training
    assert all(p.grad is None and p.is_contiguous() for p in net.parameters())


def test_the_global_random_state_decides_nothing(make_cnn: MakeNet, make_dataset: MakeData) -> None:
    results = []
    for seed in (1, 2):
        model = nn.Sequential(nn.Dropout(0.2), make_cnn(1, 6, 2))
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            fit(model, make_dataset(), AT(PGD(eps=0.1, steps=2)), OPTIONS)
        results.append(weights_of(model))
    assert equal(*results)


def test_averaged_weights_are_the_average(make_dataset: MakeData) -> None:
    """One weight, followed by hand: w' = d w' + (1 - d) w with d = min(0.5, (1 + t) / (10 + t))."""

    class Follower(nn.Module):
        """Its logit grows by the same amount at every step; one tensor under two names is averaged once."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.alias = self.weight

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.flatten(1)[:, :1] * 0, x.flatten(1)[:, :1] * 0 + self.weight], 1)

    class Pull:
        name, attack = "pull", None

        def loss(self, model: nn.Module, x: Tensor, y: Tensor, **_: object) -> Any:
            from robustmaps.defenses import Loss

            return Loss(-model(x)[:, 1].mean())

    model = Follower()
    fit(model, make_dataset(validation=0), Pull(), options(epochs=1, lr=1.0, momentum=0, weight_decay=0, ema=0.5))
    average = 0.0
    for t in range(5):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * (t + 1)
    assert float(model.weight.detach()) == pytest.approx(average)


def test_averaged_weights_are_validated_and_saved(net: nn.Sequential, make_dataset: MakeData, tmp_path: Path) -> None:
    data = make_dataset(validation=40)
    result = fit(net, data, AT(ATTACK), options(ema=0.8, epochs=3), out=tmp_path)
    evaluation = evaluate(net, *data.validation.tensors(), ATTACK, precision="fp32")
    assert evaluation.robust_accuracy.value == result.history[result.best_epoch - 1]["validation_robust_accuracy"]
    assert all(p.requires_grad for p in net.parameters())
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert not equal(last["model"], last["average"])


def test_the_augmentation_of_the_data_is_used(make_cnn: MakeNet, make_dataset: MakeData) -> None:
    results = []
    for augmentation in (Augmentation(), Augmentation(pad=1)):
        model = make_cnn(1, 6, 2)
        fit(model, replace(make_dataset(), augmentation=augmentation), Standard(), options(epochs=1))
        results.append(weights_of(model))
    assert not equal(*results)


def test_bf16_trains_float32_weights(net: nn.Sequential, make_dataset: MakeData) -> None:
    data = make_dataset(train=64)
    result = fit(net, data, AT(ATTACK), options(epochs=4, precision="bf16"))
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_watcher_hears_how_far_it_is(
    net: nn.Sequential, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustmaps.training._loop._REPORT_EVERY_S", 0)
    heard: list[Progress] = []
    fit(net, make_dataset(), AT(ATTACK), OPTIONS, watcher=heard.append)
    steps = [p for p in heard if p.unit == "steps"]
    assert [p.done for p in steps] == [1, 2, 3, 4, 5] * 2
    assert {p.total for p in steps} == {5}
    assert steps[0].phase == "epoch 1/2"
    assert {"loss", "robust_accuracy", "images_per_s"} <= steps[0].figures.keys()
    assert steps[0].remaining_s is not None
    assert steps[0].remaining_s > 0
    assert "epoch 2/2 validation" in {p.phase for p in heard}


def test_the_run_folder_is_complete(net: nn.Sequential, make_dataset: MakeData, tmp_path: Path) -> None:
    fit(net, make_dataset(), AT(ATTACK), OPTIONS, out=tmp_path / "a" / "b", description={"model": "cnn"})
    files = {file.name for file in (tmp_path / "a" / "b").iterdir()}
    assert {"last.pt", "best.safetensors", "metrics.jsonl", "log.txt", "environment.json"} <= files
    assert load_weights(tmp_path / "a" / "b" / "best.safetensors")[1]["model"] == "cnn"
    log = (tmp_path / "a" / "b" / "log.txt").read_text()
    assert "training from epoch 1, step 0 of 5" in log
    assert "finished; best epoch" in log


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_every_epoch(net: nn.Sequential, make_dataset: MakeData, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = fit(net, make_dataset(), AT(ATTACK), options(tensorboard=True), out=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train_loss")
    assert [event.step for event in losses] == [1, 2]
    assert [event.value for event in losses] == pytest.approx([record["train_loss"] for record in result.history])
    assert "validation_robust_accuracy" in events.Tags()["scalars"]


def test_tensorboard_that_is_missing_is_named(
    net: nn.Sequential, make_dataset: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'robustmaps\[tensorboard\]'"):
        fit(net, make_dataset(), Standard(), options(tensorboard=True), out=tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_run_ends_where_an_eager_one_does(make_cnn: MakeNet, make_dataset: MakeData) -> None:
    losses = []
    for compile_ in (False, True):
        result = fit(make_cnn(1, 6, 2), make_dataset(train=44), AT(ATTACK), options(compile=compile_))
        losses.append([record["train_loss"] for record in result.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)

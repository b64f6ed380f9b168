"""A run that is stopped, killed or broken off anywhere and resumed is the run that nobody disturbed."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps.attacks import FGSM, PGD
from robustmaps.data import Dataset
from robustmaps.defenses import AT, FAT, Loss, Standard
from robustmaps.engine.errors import InputError
from robustmaps.training import (
    Diverged,
    FitResult,
    Interrupted,
    RunFolder,
    TrainOptions,
    fit,
    load_weights,
    save_weights,
)
from tests.helpers.same_runs import equal, timeless

MakeData = Callable[..., Dataset]

OPTIONS = TrainOptions(
    epochs=3,
    batch_size=8,
    optimizer="adamw",
    lr=0.02,
    schedule="one-cycle",
    ema=0.9,
    device="cpu",
    precision="fp32",
    checkpoint_every_s=0,
)
DEFENSE = AT(PGD(eps=0.1, steps=2))


def make_model(seed: int = 0) -> nn.Module:
    """With all that has a state of its own: batch-norm statistics and dropout's random numbers."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(144, 2),
        )


def assert_same_run(a: tuple[nn.Module, FitResult], b: tuple[nn.Module, FitResult]) -> None:
    assert equal(a[0].state_dict(), b[0].state_dict())
    assert timeless(a[1].history) == timeless(b[1].history)
    assert a[1].best_epoch == b[1].best_epoch
    folders = [RunFolder(run[1].folder) for run in (a, b) if run[1].folder is not None]
    assert len(folders) == 2
    assert equal(*(load_weights(folder.best)[0] for folder in folders))
    assert timeless(folders[0].read_history()) == timeless(folders[1].read_history()) == timeless(a[1].history)
    states = [folder.load_last(torch.device("cpu")) for folder in folders]
    assert equal(states[0]["model"], states[1]["model"])
    assert equal(states[0]["average"], states[1]["average"])
    assert torch.equal(states[0]["random"], states[1]["random"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def undisturbed(folders: Path, make_dataset: MakeData) -> tuple[nn.Module, FitResult]:
    model = make_model()
    data = make_dataset()
    kept = folders / "undisturbed"
    if not kept.exists():
        return model, fit(model, data, DEFENSE, OPTIONS, out=kept)
    return model, fit(model, data, DEFENSE, OPTIONS, out=kept, resume=True)


class StopAt:
    """Answers yes at the given calls, counted over all sittings."""

    def __init__(self, calls: set[int]) -> None:
        self.calls, self.count = calls, 0

    def __call__(self) -> bool:
        self.count += 1
        return self.count in self.calls


# Five steps and one batch of validation an epoch: calls 1 to 5 follow steps, 6 and 7 are in the validation.
@pytest.mark.parametrize(
    "calls",
    [
        {1},
        {5},
        {6},
        {7},
        {3, 4, 5, 6},
        {6, 7, 8, 13},
        {1, 9, 17},
        *({*random.Random(s).sample(range(1, 22), 3)} for s in range(3)),
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_where_it_was(
    calls: set[int], undisturbed: tuple[nn.Module, FitResult], tmp_path: Path, make_dataset: MakeData
) -> None:
    stop, sittings = StopAt(calls), 0
    while True:
        # Another initialisation each time: all that counts comes from the checkpoint.
        model = make_model(seed=sittings)
        sittings += 1
        try:
            result = fit(model, make_dataset(), DEFENSE, OPTIONS, out=tmp_path / "run", resume=True, should_stop=stop)
            break
        except Interrupted:
            continue
    assert sittings == len(calls) + 1
    assert_same_run(undisturbed, (model, result))


def test_no_two_of_these_runs_are_alike_by_accident(
    undisturbed: tuple[nn.Module, FitResult], tmp_path: Path, make_dataset: MakeData
) -> None:
    for name, options in {"seed": TrainOptions(**{**vars(OPTIONS), "seed": 1})}.items():
        model = make_model()
        fit(model, make_dataset(), DEFENSE, options, out=tmp_path / name)
        assert not equal(model.state_dict(), undisturbed[0].state_dict())
    values = [list(undisturbed[1].history)[epoch]["train_loss"] for epoch in range(3)]
    assert len(set(values)) == 3


def test_a_run_that_is_over_stays_as_it_is(
    undisturbed: tuple[nn.Module, FitResult], make_dataset: MakeData, folders: Path
) -> None:
    model = make_model(seed=5)
    result = fit(model, make_dataset(), DEFENSE, OPTIONS, out=undisturbed[1].folder, resume=True)
    assert equal(model.state_dict(), undisturbed[0].state_dict())
    assert result.history == undisturbed[1].history
    assert result.seconds == undisturbed[1].seconds > 0


KILLED = """
import sys, time, pickle
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
from tests.training.test_resume import DEFENSE, OPTIONS, make_model
from robustmaps.training import fit
data = pickle.load(open({data!r}, "rb"))
fit(make_model(), data, DEFENSE, OPTIONS, out={out!r}, resume=True, should_stop=lambda: time.sleep(0.15))
"""


def test_a_run_survives_being_killed(
    undisturbed: tuple[nn.Module, FitResult], tmp_path: Path, make_dataset: MakeData
) -> None:
    """SIGKILL at any moment: between two steps, in a step, while a file is being written."""
    out, data = tmp_path / "run", tmp_path / "data.pickle"
    data.write_bytes(pickle.dumps(make_dataset()))
    code = KILLED.format(path=[str(Path(__file__).parents[2])], data=str(data), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (out / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.4))  # the rest of the run takes longer
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    left = len(RunFolder(out).read_history())
    assert left < OPTIONS.epochs
    model = make_model(seed=1)
    result = fit(model, make_dataset(), DEFENSE, OPTIONS, out=out, resume=True)
    assert_same_run(undisturbed, (model, result))
    assert not list(out.glob(".*.tmp"))


def test_files_that_a_crash_left_behind_are_mended(
    undisturbed: tuple[nn.Module, FitResult], tmp_path: Path, make_dataset: MakeData
) -> None:
    """Between the checkpoint and the files that follow from it, and while one was being written."""
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=out, should_stop=StopAt({8}))
    (out / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    (out / "best.safetensors").unlink()
    (out / ".last.pt.abc.tmp").write_bytes(b"half")
    model = make_model()
    result = fit(model, make_dataset(), DEFENSE, OPTIONS, out=out, resume=True)
    assert_same_run(undisturbed, (model, result))
    assert not list(out.glob(".*.tmp"))


def test_metrics_hold_each_epoch_once_also_in_between(tmp_path: Path, make_dataset: MakeData) -> None:
    with pytest.raises(Interrupted, match="epoch 2 of 3, step 1 of 5"):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=tmp_path, should_stop=StopAt({9}))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]
    fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=tmp_path, resume=True)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert {"lr", "train_loss", "train_robust_accuracy", "validation_robust_accuracy"} <= records[0].keys()


# What is refused, and what a broken checkpoint does.


def test_an_existing_run_is_not_overwritten(tmp_path: Path, make_dataset: MakeData) -> None:
    options = TrainOptions(**{**vars(OPTIONS), "epochs": 1})
    fit(make_model(), make_dataset(), DEFENSE, options, out=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    model = make_model()
    with pytest.raises(InputError, match="already contains a run; resume it or choose another folder"):
        fit(model, make_dataset(), DEFENSE, options, out=tmp_path)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert model[0].weight.is_contiguous()


@pytest.fixture
def begun(tmp_path: Path, make_dataset: MakeData) -> Path:
    """A run that was stopped in its second epoch."""
    with pytest.raises(Interrupted):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=tmp_path / "begun", should_stop=StopAt({8}))
    return tmp_path / "begun"


def strided_model() -> nn.Module:
    """As many parameters, in the same shapes, and another network."""
    model = make_model()
    model[0] = nn.Conv2d(1, 4, 3, padding=2, dilation=2)
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"lr": 0.5}}, "lr: 0.02 then, 0.5 now"),
        ({"options": {"epochs": 4, "seed": 3}}, "epochs: 3 then, 4 now; seed: 0 then, 3 now"),
        ({"defense": AT(PGD(eps=0.2, steps=2))}, r"defense: AT\(.*eps=0.1.* then, AT\(.*eps=0.2.* now"),
        ({"defense": Standard()}, r"then, Standard\(\) now"),
        ({"validation_attack": FGSM(eps=0.1)}, r"validation_attack: PGD\(.*\) then, FGSM\(.*\) now"),
        ({"model": strided_model()}, "model: Sequential of structure .* then, Sequential of structure .* now"),
        ({"data": {"seed": 9}}, "data: bright-40-12-0 .* then, bright-40-12-9"),
    ],
)
def test_a_run_is_not_continued_as_another(
    changes: dict[str, Any], message: str, begun: Path, make_dataset: MakeData
) -> None:
    before = (begun / "last.pt").read_bytes()
    with pytest.raises(InputError, match=f"was started with other settings.*{message}.*use another folder"):
        fit(
            changes.get("model", make_model()),
            make_dataset(**changes.get("data", {})),
            changes.get("defense", DEFENSE),
            TrainOptions(**{**vars(OPTIONS), **changes.get("options", {})}),
            validation_attack=changes.get("validation_attack"),
            out=begun,
            resume=True,
        )
    assert (begun / "last.pt").read_bytes() == before


def test_a_setting_that_its_text_leaves_out_counts_where_it_is_unusual(tmp_path: Path, make_dataset: MakeData) -> None:
    quiet, noisy = (FAT(PGD(eps=0.1, steps=1), tau=0, step_noise=noise) for noise in (0.0, 0.001))
    short = TrainOptions(**{**vars(OPTIONS), "epochs": 1})
    assert repr(quiet) == repr(noisy)  # as in checkpoints that were written before there was noise
    fit(make_model(), make_dataset(), quiet, short, out=tmp_path)
    fit(make_model(), make_dataset(), quiet, short, out=tmp_path, resume=True)
    with pytest.raises(InputError, match=r"defense: FAT\(.*\) then, FAT\(.*\) step_noise=0\.001 now"):
        fit(make_model(), make_dataset(), noisy, short, out=tmp_path, resume=True)


def test_what_decides_nothing_may_change(begun: Path, make_dataset: MakeData) -> None:
    options = TrainOptions(**{**vars(OPTIONS), "checkpoint_every_s": 60.0, "device": "auto"})
    if torch.cuda.is_available():
        options = TrainOptions(**{**vars(OPTIONS), "checkpoint_every_s": 60.0})
    assert len(fit(make_model(), make_dataset(), DEFENSE, options, out=begun, resume=True).history) == 3


def test_a_folder_in_use_is_refused(tmp_path: Path, make_dataset: MakeData) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(InputError, match="another process is training this run"):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=tmp_path)
    with RunFolder(tmp_path).locked():
        pass


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another file"])
def test_a_damaged_checkpoint_is_a_clear_error(damage: str, begun: Path, make_dataset: MakeData) -> None:
    last = begun / "last.pt"
    (begun / "before.pt").unlink()
    if damage == "another file":
        torch.save({"weights": torch.zeros(1)}, last)
    else:
        content = last.read_bytes()
        last.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(InputError, match=r"last.pt: (can't be read as a checkpoint|not a checkpoint)"):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=begun, resume=True)


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_cannot_run_code(begun: Path, make_dataset: MakeData, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (begun / "before.pt").unlink()
    torch.save({"settings": Malicious(mark)}, begun / "last.pt")
    with pytest.raises(InputError, match="can't be read as a checkpoint"):
        fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=begun, resume=True)
    assert not mark.exists()
    torch.load(begun / "last.pt", weights_only=False)
    assert mark.exists()  # so it would have


@pytest.mark.parametrize("content", [b"", b"\x80\x04nonsense", b"\xff" * 64])
def test_weights_that_are_none_are_a_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(content)
    for name in ("best.safetensors", "missing.safetensors"):
        with pytest.raises(InputError, match=f"{name}: can't be read"):
            load_weights(tmp_path / name)


def test_weights_come_back_with_their_description(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w", {"a": weight, "tied": weight, "n": torch.tensor(3)}, {"model": "vgg11"})
    weights, description = load_weights(tmp_path / "w")
    assert torch.equal(weights["a"], weight)
    assert torch.equal(weights["tied"], weight)
    assert int(weights["n"]) == 3
    assert description == {"model": "vgg11"}


def test_a_crash_while_saving_keeps_the_old_checkpoint(
    begun: Path, make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[nn.Module, FitResult]
) -> None:
    before = (begun / "last.pt").read_bytes()

    def save_half(_: object, file: Any) -> None:
        file.write(before[:1000])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_half)
        with pytest.raises(OSError, match="no space left"):
            fit(make_model(), make_dataset(), DEFENSE, OPTIONS, out=begun, resume=True)
    assert (begun / "last.pt").read_bytes() == before
    model = make_model()
    result = fit(model, make_dataset(), DEFENSE, OPTIONS, out=begun, resume=True)
    assert_same_run(undisturbed, (model, result))


class NanAt:
    """Plain training whose loss is NaN at one step."""

    name = "nan"
    attack = None

    def __init__(self, step: int) -> None:
        self.step = step

    def __repr__(self) -> str:
        return "NanAt"

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, **_: object) -> Loss:
        self.step -= 1
        loss = Standard().loss(model, x, y)
        return Loss(loss.value * float("nan")) if self.step == 0 else loss


@pytest.mark.parametrize("every_s", [0.0, 60.0])
def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint(
    every_s: float, tmp_path: Path, make_dataset: MakeData
) -> None:
    options = TrainOptions(**{**vars(OPTIONS), "checkpoint_every_s": every_s})
    where = "epoch 2, step 3" if every_s == 0 else "epoch 2, step 5"
    with pytest.raises(Diverged, match=f"the loss became nan at {where}; try a smaller lr than 0.02"):
        fit(make_model(), make_dataset(), NanAt(8), options, out=tmp_path)
    state = RunFolder(tmp_path).load_last(torch.device("cpu"))
    assert (state["state"]["epoch"], state["state"]["step"]) == (1, 2 if every_s == 0 else 0)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert "diverged" in (tmp_path / "log.txt").read_text()
    result = fit(make_model(), make_dataset(), NanAt(-1), options, out=tmp_path, resume=True)
    assert [record["epoch"] for record in result.history] == [1, 2, 3]


def test_the_same_weights_are_the_same_file(tmp_path):
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    about = {"robustmaps": "{}", "epoch": "3", "é": "ü", "z": ""}
    for number in range(10):
        save_weights(tmp_path / f"{number}.safetensors", weights, about)
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1
    found, description = load_weights(tmp_path / "0.safetensors")
    assert description == about
    assert all(torch.equal(found[name], weights[name]) for name in weights)

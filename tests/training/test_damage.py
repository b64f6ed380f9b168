"""Damage to weights, checkpoints and records of a run is noticed, and a run goes on from the checkpoint before."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from robustmaps.data import Dataset
from robustmaps.defenses import Standard
from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.training import RunFolder, TrainOptions, fit, load_weights, read_weights, save_weights

CPU = torch.device("cpu")
OPTIONS = TrainOptions(epochs=3, batch_size=8, device="cpu", precision="fp32", checkpoint_every_s=0)
WEIGHTS = {"w": torch.linspace(-1, 1, 24).view(2, 3, 4), "n": torch.tensor(3)}
MakeData = Callable[..., Dataset]


def flips(data: bytes, rows: range, count: int) -> list[bytes]:
    """The data with one bit flipped, at places drawn from the rows."""
    places = random.Random(0).sample(range(8 * rows.start, 8 * rows.stop), count)
    return [data[: p // 8] + bytes([data[p // 8] ^ 1 << p % 8]) + data[p // 8 + 1 :] for p in places]


def test_no_flipped_bit_changes_weights_or_their_description(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, WEIGHTS, {"robustmaps": '{"model": "resnet8"}'})
    whole = path.read_bytes()
    noticed = 0
    for data in [*flips(whole, range(len(whole)), 400), *(whole[:end] for end in range(0, len(whole), 9))]:
        path.write_bytes(data)
        try:
            tensors, description = load_weights(path)
        except InputError as error:
            noticed += "w.safetensors" in str(error)
        else:
            assert description == {"robustmaps": '{"model": "resnet8"}'}
            assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)
    assert noticed > 390


def test_weights_are_read_once_with_the_hash_of_the_same_bytes(tmp_path: Path) -> None:
    from robustmaps.engine.files import sha256

    save_weights(tmp_path / "w", WEIGHTS, {"a": "b"})
    found = read_weights(tmp_path / "w")
    assert found.sha256 == sha256(tmp_path / "w")
    assert found.description == {"a": "b"}
    assert torch.equal(found.tensors["w"], WEIGHTS["w"])
    header = safetensors.safe_open(str(tmp_path / "w"), framework="pt").metadata()
    assert header["checksum"].startswith("crc32:")


def test_the_same_tensors_in_another_order_are_the_same_weights(tmp_path: Path) -> None:
    save_weights(tmp_path / "w", WEIGHTS, {"a": "b", "c": "d"})
    with safetensors.safe_open(str(tmp_path / "w"), framework="pt") as file:
        metadata = file.metadata()
    safetensors.torch.save_file(WEIGHTS, tmp_path / "again", dict(reversed(metadata.items())))
    assert load_weights(tmp_path / "again")[1] == {"a": "b", "c": "d"}
    safetensors.torch.save_file({**WEIGHTS, "n": torch.tensor(4)}, tmp_path / "changed", metadata)
    with pytest.raises(Damaged, match="if it was changed on purpose, remove 'checksum' from its header"):
        load_weights(tmp_path / "changed")


def model() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


@pytest.fixture
def begun(make_dataset: MakeData, tmp_path: Path) -> RunFolder:
    """A run that was stopped after some checkpoints."""
    left = iter(range(5))
    with pytest.raises(Interrupted):
        fit(
            model(),
            make_dataset(),
            Standard(),
            OPTIONS,
            out=tmp_path / "run",
            should_stop=lambda: next(left, None) is None,
        )
    return RunFolder(tmp_path / "run")


def test_no_flipped_bit_changes_a_checkpoint(begun: RunFolder) -> None:
    good, whole = begun.load_last(CPU), begun.last.read_bytes()
    begun.before.unlink()
    noticed = 0
    for data in [*flips(whole, range(len(whole)), 60), *flips(whole, range(len(whole) - 2000, len(whole)), 60)]:
        begun.last.write_bytes(data)
        try:
            state = begun.load_last(CPU)
        except Damaged:
            noticed += 1
        else:
            assert repr(state) == repr(good)
    assert noticed > 60


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "missing"])
def test_a_run_goes_on_from_the_checkpoint_before(damage: str, begun: RunFolder, make_dataset: MakeData) -> None:
    whole, data = begun.last.read_bytes(), make_dataset()
    middle = whole.index(begun.load_last(CPU)["model"]["1.weight"].numpy().tobytes()) + 2
    (flipped,) = flips(whole, range(middle, middle + 1), 1)
    begun.last.write_bytes({"flipped": flipped, "cut": whole[:-9], "empty": b"", "missing": b""}[damage])
    if damage == "missing":
        begun.last.unlink()
    undisturbed, resumed = model(), model()
    fit(undisturbed, data, Standard(), OPTIONS)
    with pytest.warns(UserWarning, match=r"last.pt: .*; resuming from the checkpoint before it \(epoch 1\)"):
        fit(resumed, data, Standard(), OPTIONS, out=begun.path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True))
    assert (begun.path / "damaged.pt").exists() == (damage != "missing")
    assert "resuming from the checkpoint before" in (begun.path / "log.txt").read_text()


def test_a_run_without_a_sound_checkpoint_is_not_begun_again(begun: RunFolder, make_dataset: MakeData) -> None:
    for path in (begun.last, begun.before):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Damaged, match=r"last.pt: .*before.pt: .*restore one from a copy, or delete them"):
        fit(model(), make_dataset(), Standard(), OPTIONS, out=begun.path, resume=True)


def test_epochs_that_were_changed_are_named(tmp_path: Path) -> None:
    folder, notes = RunFolder(tmp_path), []
    history = [{"epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    folder.write_history(history)
    assert folder.read_history() == history
    whole = folder.metrics.read_text()
    for damaged, line in (
        (whole.replace("0.5", "0.6"), 2),
        (whole.replace("{", "[", 1), 1),
        ("".join(whole.splitlines(keepends=True)[::2]), 2),
        (whole[:-1] + "x", 3),
    ):
        folder.metrics.write_text(damaged)
        with pytest.raises(Damaged, match=rf"metrics.jsonl, line {line}: .*resume the run"):
            folder.read_history()
    folder.metrics.write_text(whole[: whole.rindex("{") + 5])
    assert folder.read_history(notes.append) == history[:2]
    assert ["cut off" in note for note in notes] == [True]
    folder.metrics.write_text("")
    assert folder.read_history() == []  # as earlier versions wrote it before the first epoch's end
    folder.best.touch()
    with pytest.raises(Damaged, match=r"metrics.jsonl: empty; resume the run"):
        folder.read_history()

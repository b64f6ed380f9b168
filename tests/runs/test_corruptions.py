"""Corrupted digits, from a run folder to a file and a table."""

import json
from pathlib import Path

import numpy as np
import pytest

from robustmaps.cli import main
from robustmaps.config import RunConfig, from_mapping
from robustmaps.data import Dataset
from robustmaps.runs import Options, evaluate_corrupted, train
from tests.helpers.ranks import finish, start


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits: Dataset) -> Path:
    config = from_mapping({"epochs": 3, "defense": "standard", "schedule": "one-cycle", "lr": 0.2}, RunConfig())
    return train(config, tmp_path_factory.mktemp("runs"), data=digits).folder


@pytest.fixture
def folder(tmp_path: Path, digits: Dataset) -> Path:
    """60 digits, untouched and as white as can be."""
    path = tmp_path / "digits-c"
    path.mkdir()
    few = digits.test.subset(60)
    images = few.images.permute(0, 2, 3, 1).numpy()
    np.save(path / "nothing.npy", np.tile(images, (5, 1, 1, 1)))
    np.save(path / "white.npy", np.full_like(np.tile(images, (5, 1, 1, 1)), 255))
    np.save(path / "labels.npy", np.tile(few.labels.numpy(), 5))
    return path


def test_two_processes_find_what_one_finds(run: Path, folder: Path, tmp_path: Path) -> None:
    found = {}
    for size in (1, 2):
        out = tmp_path / f"{size}.json"
        command = ["robustmaps", "evaluate", str(run), "--corruptions", str(folder), "--batch-size", "16"]
        for code, _, told in finish(start(size, [*command, "--out", str(out)])):
            assert code == 0, told
        values = json.loads(out.read_text())
        found[size] = {key: values[key] for key in ("images", "corruptions", "severities", "undecided", "fingerprint")}
    assert found[1] == found[2]


def test_a_table_and_a_file_once(run: Path, folder: Path, capsys) -> None:
    command = ["evaluate", str(run), "--corruptions", str(folder)]
    assert main(command) == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines()) if words}
    assert float(rows["nothing"][0]) > 60
    assert float(rows["white"][0]) < 30
    assert "60 images, each with 5 severities of 2 corruptions" in out
    (file,) = (run / "evaluation").glob("corruptions-digits-c-60-*.json")
    assert not list((run / "evaluation").glob("*.partial"))
    assert main(["runs", str(run)]) == 0
    assert "unreadable" not in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["file"] == str(file)
    assert values["mean_corruption_accuracy"] == json.loads(file.read_text())["mean_corruption_accuracy"]
    assert main(command) == 0
    assert "Evaluated before: " in capsys.readouterr().out


def test_other_images_or_samples_are_another_file(run: Path, folder: Path) -> None:
    first = evaluate_corrupted(run, folder, Options(samples=30))
    assert evaluate_corrupted(run, folder, Options(samples=30)).before
    np.save(folder / "white.npy", np.load(folder / "nothing.npy"))
    second = evaluate_corrupted(run, folder, Options(samples=30))
    assert not second.before
    assert second.path != first.path
    with pytest.raises(ValueError, match=r"contains something else; name another file"):
        evaluate_corrupted(run, folder, Options(samples=20), out=first.path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "fgsm"], "leave out --attack"),
        (["--save-adversarials", "--split", "validation"], "leave out --split, --save-adversarials"),
    ],
)
def test_options_without_effect_are_refused(options: list[str], message: str, run: Path, folder: Path, capsys) -> None:
    assert main(["evaluate", str(run), "--corruptions", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_images_of_another_kind_are_refused(run: Path, folder: Path, capsys) -> None:
    for name in ("nothing", "white"):
        np.save(folder / f"{name}.npy", np.zeros((300, 8, 8, 3), np.uint8))
    assert main(["evaluate", str(run), "--corruptions", str(folder)]) == 2
    assert "the network can't take images of shape (3, 8, 8)" in capsys.readouterr().err


def test_a_run_with_extra_images_is_evaluated_without_them(tmp_path: Path, digits: Dataset, capsys) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "extra.npz"
    np.savez(file, image=rng.integers(0, 256, (50, 8, 8), dtype=np.uint8), label=np.arange(50) % 10)
    options = ["--epochs", "1", "--defense", "standard", "--extra-data", str(file), "--extra-share", "0.5"]
    out = ["--out", str(tmp_path / "runs")]
    assert main(["train", *options, *out, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["config"]["extra_data"] == str(file)
    assert {"data_s", "data_share"} <= run["best"].keys()
    file.unlink()
    assert main(["evaluate", run["run"], "--attack", "fgsm", "--samples", "20"]) == 0
    assert main(["train", *options[:4], *out, "--extra-data", "nowhere.npz"]) == 2
    assert "nowhere.npz: no such file" in capsys.readouterr().err


def test_the_name_of_a_run_tells_its_extra_images() -> None:
    plain = RunConfig()
    assert from_mapping({"extra_share": 0.5}).name == plain.name
    names = {from_mapping({"extra_data": "1m.npz", "extra_share": share}).name for share in (0.5, 0.7)}
    assert len(names | {plain.name}) == 3
    with pytest.raises(ValueError, match=r"extra_share=1\.0: expected a share of each batch"):
        from_mapping({"extra_share": 1.0})

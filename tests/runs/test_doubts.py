"""Other images than those of training are refused; unfinished runs and copied images are warned of."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmaps import data
from robustmaps.cli import main
from robustmaps.config import AttackConfig, RunConfig, from_mapping
from robustmaps.data import Dataset, ImageSet
from robustmaps.engine.errors import InputError
from robustmaps.evaluation import Evaluation
from robustmaps.networks import Checkpoint, open_checkpoint
from robustmaps.report import report
from robustmaps.runs import Options, diagnose_checkpoint, evaluate_checkpoint, train
from robustmaps.training import Interrupted, RunFolder
from tests.conftest import small_cnn

FGSM = AttackConfig("fgsm")
FEW = Options(samples=60, device="cpu")
CONFIG = from_mapping({"epochs": 2, "defense": "standard", "eps": 0.1, "schedule": "one-cycle", "lr": 0.2}, RunConfig())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("runs")).folder


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


def names(evaluation: Evaluation) -> list[str]:
    return [text.partition(":")[0] for text in evaluation.warnings]


def renamed(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    return replace(dataset, name="mine", classes=classes)


def test_a_finished_run_on_its_own_images_is_left_in_peace(run: Path) -> None:
    assert evaluate_checkpoint(run, FGSM, FEW).evaluation.warnings == ()
    assert evaluate_checkpoint(run, FGSM, replace(FEW, split="validation")).evaluation.warnings == ()


def test_other_classes_are_refused(digits: Dataset) -> None:
    animals = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")
    checkpoint = replace(open_checkpoint_of(digits), trained_classes=animals)
    message = r"has 10 classes \(dog, ant, bee, ...\); \S+ was trained on 10 classes \(ant, bee, cat, ...\)"
    for others, part in (
        (("dog", "ant", "bee", "cat", *animals[4:]), f"{message}; these are the same in another order"),
        (animals[:9], r"has 9 classes .* was trained on 10 classes"),
        (("aeroplane", *animals[1:]), "has 10 classes"),
    ):
        with pytest.raises(InputError, match=part):
            evaluate_checkpoint(checkpoint, FGSM, replace(FEW, data=renamed(digits, others)))
        with pytest.raises(InputError, match=part):
            diagnose_checkpoint(checkpoint, data=renamed(digits, others), samples=20)


def test_names_that_differ_in_writing_only_or_are_missing_are_taken(run: Path, digits: Dataset, tmp_path: Path) -> None:
    opened = replace(open_checkpoint(run), trained_classes=tuple(f"Big {n}" for n in range(10)))
    for number, classes in enumerate((digits.classes, tuple(f"big_{n}" for n in range(10)))):
        options = replace(FEW, data=renamed(digits, classes))
        done = evaluate_checkpoint(opened, FGSM, options, out=tmp_path / f"{number}.json")
        assert done.evaluation.clean_accuracy.value > 0.5


def test_another_size_is_refused(run: Path, digits: Dataset) -> None:
    images = torch.nn.functional.interpolate(digits.test.images.float(), (12, 10)).byte()
    sizes = ImageSet(images, digits.test.labels)
    other = replace(digits, name="mine", train=sizes, validation=sizes, test=sizes)
    with pytest.raises(InputError, match=r"of 12 x 10 pixels; .* was trained on 8 x 8; --image-size 8 resizes them"):
        evaluate_checkpoint(run, FGSM, replace(FEW, data=other))


def test_an_unfinished_run_says_so_until_it_is_finished(tmp_path: Path) -> None:
    def stop() -> bool:
        return next(iter(tmp_path.glob("*/best.safetensors")), None) is not None

    with pytest.raises(Interrupted):
        train(CONFIG, tmp_path, should_stop=stop)
    (folder,) = tmp_path.iterdir()
    done = evaluate_checkpoint(folder, FGSM, FEW)
    assert names(done.evaluation) == ["unfinished-run"]
    assert "training is at epoch 1 of 2" in done.evaluation.warnings[0]
    assert any("unfinished-run" in warning for warning in report(folder, pictures=False).page.warnings)
    # As if the second epoch had brought no better weights.
    files = RunFolder(folder)
    (first,) = files.read_history()
    files.write_history([first, {**first, "epoch": 2}])
    again = evaluate_checkpoint(folder, FGSM, FEW)
    assert again.before
    assert again.evaluation.warnings == ()
    assert Evaluation.load(again.path) == again.evaluation
    # A damaged history keeps nobody from evaluating the weights.
    files.metrics.write_text("{\n")
    assert evaluate_checkpoint(folder, FGSM, FEW).evaluation.warnings == ()


AS_TEXT = tuple(sorted(map(str, range(1, 11))))


@pytest.mark.parametrize(
    ("classes", "trained", "given", "warned"),
    [
        (AS_TEXT, None, None, True),
        (AS_TEXT, None, ",".join(AS_TEXT), False),
        (AS_TEXT, AS_TEXT, None, False),
        (tuple(f"{number:02}" for number in range(1, 11)), None, None, False),
        (("11", "9", *"abcdefgh"), None, None, True),
    ],
)
def test_numbers_in_the_order_of_text_are_warned_of_unless_the_order_is_known(
    run: Path,
    digits: Dataset,
    classes: tuple[str, ...],
    trained: tuple[str, ...] | None,
    given: str | None,
    warned: bool,
    tmp_path: Path,
) -> None:
    checkpoint = replace(open_checkpoint(run), data=None, classes=given, trained_classes=trained)
    options = replace(FEW, data=renamed(digits, classes))
    done = evaluate_checkpoint(checkpoint, FGSM, options, out=tmp_path / "e.json")
    assert names(done.evaluation) == ["label-order"] * warned
    assert all("numbers in the order of text" in text and "--classes" in text for text in done.evaluation.warnings)


def test_test_images_among_the_training_images(run: Path, digits: Dataset, tmp_path: Path) -> None:
    test = digits.test.subset(60)
    leaked = torch.cat([digits.train.images, test.images[::4]])
    labels = torch.cat([digits.train.labels, test.labels[::4]])
    other = replace(digits, name="mine", spec="mine", train=ImageSet(leaked, labels))
    unknown = replace(open_checkpoint(run), data=None)
    done = evaluate_checkpoint(unknown, FGSM, replace(FEW, data=other), out=tmp_path / "e.json")
    assert names(done.evaluation) == ["copied-images"]
    assert "15 of the 60 test images are also training images (25 %)" in done.evaluation.warnings[0]


def test_the_training_images_of_the_run_count(run: Path, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    x, y = digits.train.images[:80].permute(0, 2, 3, 1).numpy(), digits.train.labels[:80].numpy()
    np.savez(path, x_train=x[:40], y_train=np.arange(40) % 10, x_test=x[40:], y_test=y[40:])
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:2] // 2, y_test=y[:2])
    known = open_checkpoint(run)
    assert known.data is not None
    own = replace(known, data=replace(known.data, data=str(tmp_path / "own.npz"), validation=0))
    options = replace(FEW, samples=None, data=str(path))
    assert "copied-images" in names(evaluate_checkpoint(own, FGSM, options, out=tmp_path / "e.json").evaluation)


def test_the_table_and_the_json_of_the_command(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, digits: Dataset
) -> None:
    (tmp_path / "flat.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Rounded(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(64, 10)\n\n"
        "    def forward(self, x):\n        return self.layer(x.round().flatten(1))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        command = ["evaluate", "--model-from", "flat:Rounded", "--data=digits", "--attack=fgsm", "--samples=60"]
        assert main([*command, "--eps", "0.1", "--json"]) == 0
        warnings = json.loads(capsys.readouterr().out)["warnings"]
        assert any(text.startswith("zero-gradients: the gradient is zero at") for text in warnings)
        assert main([*command, "--eps", "0.1"]) == 0
        assert "Note: zero-gradients: " in capsys.readouterr().out.replace("\n", " ")


def open_checkpoint_of(dataset: Dataset) -> Checkpoint:
    return Checkpoint(None, Path("x"), "mine", "cnn", small_cnn(), None, "linf", 0.1, "0", dataset.classes, (8, 8))

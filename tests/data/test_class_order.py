import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from robustmaps.cli import main
from robustmaps.config import DataConfig
from robustmaps.data import load
from robustmaps.networks import load_data

NAMES = ("0", "1", "2", "10")


@pytest.fixture
def numbers(write_images: Callable[..., Path]) -> Path:
    return write_images({f"{split}/{name}": 2 + int(name) for split in ("train", "test") for name in NAMES})


def test_numbers_are_in_the_order_of_imagefolder_which_is_said(numbers: Path) -> None:
    data = load(numbers, validation=0)
    assert data.classes == tuple(sorted(NAMES)) == ("0", "1", "10", "2")
    assert data.train.labels.bincount().tolist() == [2, 3, 12, 4]
    assert "classes: in the order of text (0, 1, 10, ...), as torchvision's ImageFolder sorts them" in data.notes


@pytest.mark.parametrize("given", ["list", "file", "sequence"])
def test_classes_in_a_given_order(given: str, numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    classes = {"list": ",".join(NAMES), "file": str(tmp_path / "names.txt"), "sequence": NAMES}[given]
    plain, data = load(numbers, validation=0), load(numbers, validation=0, classes=classes)
    assert data.classes == NAMES
    assert data.train.labels.bincount().tolist() == [2, 3, 4, 12]
    assert data.fingerprint != plain.fingerprint
    assert [n for n in data.notes if n.startswith("classes:")] == ["classes: in the given order (0, 1, 2, ...)"]
    assert torch.equal(data.train.images, plain.train.images)
    assert load(numbers, classes=plain.classes).fingerprint == plain.fingerprint


def test_classes_without_images_keep_their_place(numbers: Path) -> None:
    data = load(numbers, validation=0, classes=[str(n) for n in range(12)])
    assert data.num_classes == 12
    assert set(data.test.labels.tolist()) == {0, 1, 2, 10}
    assert "8 of 12 have no image" in data.notes[-1]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("0,1,2", "classes: '10' of the data is missing; expected all of 0, 1, 10, 2"),
        ("0,1,2,10,1", "classes: '1' is given 2 times"),
        ("missing.txt", "missing.txt: can't be read .* expected class names with commas, or a text file"),
        ("", "expected class names"),
        (".", "a folder; expected class names"),
    ],
)
def test_classes_that_do_not_fit(classes: str, message: str, numbers: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load(numbers, classes=classes)


def test_a_configuration_names_the_order(numbers: Path) -> None:
    assert load_data(DataConfig(str(numbers), classes=",".join(NAMES))).classes == NAMES


def test_imported_weights_are_evaluated_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network that reads the class off the image: all right in its own order, few otherwise."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 12
    images = np.repeat((labels * 20)[:, None, None], 64, 1).reshape(48, 8, 8) + rng.integers(0, 9, (48, 8, 8))
    names = np.array(sorted(map(str, range(12))))
    np.savez(
        tmp_path / "d.npz", images=images.astype(np.uint8), labels=np.argsort(names.astype(int))[labels], classes=names
    )
    (tmp_path / "ordered_net.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        at = x.mean((1, 2, 3), keepdim=False)[:, None] * 255 - 4\n"
        "        return -(at - 20. * torch.arange(12)) ** 2\n"
    )
    monkeypatch.chdir(tmp_path)
    shown = {}
    for classes in (None, ",".join(map(str, range(12)))):
        extra = [] if classes is None else ["--classes", classes]
        line = "evaluate --model-from ordered_net:Net --data d.npz --attack fgsm --eps 0.001 --device cpu --json"
        code = main([*line.split(), *extra, "--out", f"{classes is None}.json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        shown[classes is None] = json.loads(out)["clean_accuracy"]
    assert shown[False] == 1.0 or shown[False]["value"] == 1.0
    assert shown[True] != shown[False]

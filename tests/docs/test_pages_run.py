"""Every page, run from top to bottom in a folder of its own: programs and commands; notebooks, cell by cell.

What makes it cheap: trainings are cut to one epoch and one step of attack, measurements to a few images, and
photographs take the place of CIFAR-10. ``FOLDER/NAME`` in capitals stands for a run, in the order in which runs were
made. What is not run is listed in `not_run`, or marked on its page.
"""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robustmaps
from robustmaps.cli import main
from tests.docs.not_run import MOST, NOT_RUN
from tests.helpers.blocks import BLOCKS, ROOT
from website import notebooks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # such as of one epoch, or of the few images
]

COMMANDS = ("commands", "sh", "bash")
KINDS = ("python", *COMMANDS)
RUN_ELSEWHERE = ("CONTRIBUTING.md",)
"""Whose files make up a package, with a test of its own (tests/test_contributing.py)."""
PAGES = sorted({block.page for block in BLOCKS if block.kind in KINDS} - {*RUN_ELSEWHERE})
NO_STEPS = {"--recipe", "--resume"}
KEPT_OUT = {(page, shlex.join(shlex.split(command))) for page, command in NOT_RUN}
STUDY = """
axes: {defense: [at, trades], seed: [0, 1]}
fixed: {data: digits, model: resnet8, eps: 0.15, steps: 1, epochs: 1}
evaluation: {attack: fgsm}
"""
SHORTER = [
    (r"--epochs \d+", "--epochs 1"),
    (r"epochs=\d+", "epochs=1"),
    (r"epochs: \d+", "epochs: 1"),
    (r"attack: a3", "attack: a3, samples: 60"),
    (r"--data (PATH/)?cifar10(\.tar\.xz)?", "--data photos --image-size 16"),
    (r"PATH/photos.tar.xz", "photos"),
    (r"FILE.pt|\b(rob_)?paras.pt", "resnet18.pt"),
    (r"'last.pth#ema'|last.pth#ema", "preactresnet18.pt"),
    (r"steps=20, restarts=5", "steps=1, restarts=1"),
]
FEWER = {
    "train": {"--epochs": "1", "--steps": "1"},
    "evaluate": {"--samples": "8"},
    "diagnose": {"--samples": "8"},
    "analyze": {"--samples": "10"},
    "plan": {"--samples": "10"},
}
"""Options that a verb gets where the page does not give them."""
MINE = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "study.yaml").write_text(STUDY)
    assert main(["sweep", str(folder / "study.yaml"), "--jobs", "2"]) == 0
    return folder / "study"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with photographs, in which the page is followed."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("across", "along", "dots", "plain")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(16):
            image = random.integers(0, 90, (24, 24, 3), np.uint8)
            image[:: 4 if number in (0, 2) else 1, :: 4 if number in (1, 2) else 1] += np.uint8(40 * number)
            Image.fromarray(image).save(folder / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


class Reader:
    """Somebody who follows a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, str] = {}

    def shortened(self, text: str) -> str:
        """Fewer epochs, and the runs that names in capitals stand for."""
        for long, short in SHORTER:
            text = re.sub(long, short, text)
        return re.sub(r"\b([a-z]+/[A-Z_]+)\b", lambda found: self._run(found[1]), text)

    def command(self, words: list[str]) -> list[str]:
        """The words of a command, with what makes it cheap."""
        short = shlex.split(self.shortened(shlex.join(words)))
        for option, value in FEWER.get(short[0], {}).items():
            if option not in short and not (option == "--steps" and NO_STEPS & {*short}):
                short += [option, value]
        if short[0] == "train" and "--enlarge-at" in short:  # in the middle of several epochs
            short[short.index("--epochs") + 1] = "4"
        if "--recipe" in short and "--data" not in short and "digits" not in short[short.index("--recipe") + 1]:
            short += ["--data", "photos", "--image-size", "16"]
        if "--recipe" in short:
            short += ["--validation", "0.1"]
        if short[0] == "train" and ("--recipe" in short or any("cifar10" in word for word in words)):
            short += ["--train-samples", "16"]
        return short

    def _run(self, name: str) -> str:
        if name not in self.runs:
            made = sorted(self.folder.glob(f"{name.partition('/')[0]}/*/config.yaml"), key=lambda f: f.stat().st_mtime)
            left = [str(f.parent.relative_to(self.folder)) for f in made]
            self.runs[name] = next(run for run in left if run not in self.runs.values())
        return self.runs[name]

    def writes(self, file: str, text: str) -> None:
        """A file of the page; weights for a network in it."""
        (self.folder / file).write_text(self.shortened(text))
        if file == "mine.py":
            names: dict[str, object] = {}
            exec(text, names)
            torch.save(names["network"]().state_dict(), self.folder / "weights.pt")  # type: ignore[operator]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.timeout(900)
def test_the_page_does_what_it_says(page, desk, study, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    found = [block for block in BLOCKS if block.page == page and not block.reason]
    files = {block.file for block in found if block.file}
    if "study.yaml" not in files:
        for name in ("study", "runs"):
            shutil.copytree(study, desk / name)
        (desk / "study.yaml").write_text(STUDY)
    reader = Reader(desk)
    if "mine.py" not in files:
        reader.writes("mine.py", MINE)
    for name in ("resnet18", "preactresnet18"):
        if any(name in block.text and "--weights" in block.text for block in found):
            fitting = robustmaps.models.create(name, num_classes=4)
            torch.save(fitting.state_dict(), desk / f"{name}.pt")
    model = robustmaps.load("resnet8", data="digits")
    x, y = (part[:20] for part in model.data.test.tensors())
    names = {"model": model, "x": x, "y": y, "__name__": "page"}
    for block in found:
        if block.file:
            reader.writes(block.file, block.text)
        elif block.kind == "python":
            exec(compile(reader.shortened(block.text), str(block), "exec"), names)
        elif block.kind in COMMANDS:
            for words in block.commands():
                if (page, shlex.join(words)) not in KEPT_OUT:
                    short = reader.command(words)
                    assert main(short) == 0, f"{block}: {short}\n{capsys.readouterr().err}"


def test_what_is_not_run_is_on_its_page_and_does_not_grow():
    there = {(block.page, shlex.join(words)) for block in BLOCKS if not block.reason for words in block.commands()}
    assert there >= KEPT_OUT
    assert len(NOT_RUN) <= MOST
    assert all(len(reason.split()) > 1 and where for reason, where in NOT_RUN.values())
    named = {word for _, where in NOT_RUN.values() for word in where.split() if word.startswith("tests/")}
    assert all((ROOT / word).exists() for word in named), named
    assert len(there - KEPT_OUT) > 80


@pytest.mark.parametrize("notebook", sorted(notebooks.FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs_and_keeps_its_outputs(notebook):
    kept = json.loads(notebook.read_text(encoding="utf-8"))
    new = notebooks.run(notebook)

    def kinds(of):
        return [[each["output_type"] for each in cell.get("outputs", ())] for cell in of["cells"]]

    assert kinds(new) == kinds(kept)
    assert sum(map(len, kinds(kept))) >= 4
    assert "![" in notebooks.as_markdown(notebook) or "```text" in notebooks.as_markdown(notebook)

"""Getting started, every how-to page and every program on a page, run from top to bottom; notebooks, cell by cell.

Trainings are cut to one epoch. ``FOLDER/NAME`` in capitals stands for a run, in the order in which runs were made.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robustmaps
from robustmaps.cli import main
from tests.helpers.blocks import BLOCKS, ROOT
from website import notebooks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::robustmaps.EnlargeWarning", "ignore::robustmaps.evaluation.EvaluationWarning"),
]

WHOLE = sorted({b.page for b in BLOCKS if "/how-to/" in b.page or b.page.endswith("getting-started.md")})
PROGRAMS = sorted({b.page for b in BLOCKS if b.kind == "python"} - {*WHOLE, "README.md", "CONTRIBUTING.md"})
"""Pages of which only the programs are run; those of README and CONTRIBUTING have tests of their own."""
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
]


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
        return re.sub(r"\b([a-z]+/[A-Z_]{2,})\b", lambda found: self._run(found[1]), text)

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


@pytest.mark.parametrize("page", [*WHOLE, *PROGRAMS])
@pytest.mark.timeout(600)
def test_the_page_does_what_it_says(page, desk, study, capsys, monkeypatch):
    for module in ("mine",):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
    found = [block for block in BLOCKS if block.page == page and not block.reason]
    if not any(block.file == "study.yaml" for block in found):
        for name in ("study", "runs"):
            shutil.copytree(study, desk / name)
    reader = Reader(desk)
    model = robustmaps.load("resnet8", data="digits")
    x, y = (part[:20] for part in model.data.test.tensors())
    names = {"model": model, "x": x, "y": y, "__name__": "page"}
    done = 0
    for block in found:
        if block.file:
            reader.writes(block.file, block.text)
        elif block.kind == "python":
            exec(compile(reader.shortened(block.text), str(block), "exec"), names)
            done += 1
        elif block.kind == "commands" and page in WHOLE:
            for words in block.commands():
                words = reader.shortened(" ".join(words)).split()
                assert main(words) == 0, f"{block}: {words}\n{capsys.readouterr().err}"
                done += 1
    assert done or page.endswith("completion.md")


@pytest.mark.parametrize("notebook", sorted(notebooks.FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebook_runs_and_keeps_its_outputs(notebook):
    kept = json.loads(notebook.read_text(encoding="utf-8"))
    new = notebooks.run(notebook)

    def kinds(of):
        return [[each["output_type"] for each in cell.get("outputs", ())] for cell in of["cells"]]

    assert kinds(new) == kinds(kept)
    assert sum(map(len, kinds(kept))) >= 4
    assert "![" in notebooks.as_markdown(notebook) or "```text" in notebooks.as_markdown(notebook)


def test_all_pages_with_programs_are_run():
    assert len(WHOLE) >= 8
    assert {ROOT / page for page in PROGRAMS} >= {ROOT / "docs" / name for name in ("studies.md", "libraries.md")}

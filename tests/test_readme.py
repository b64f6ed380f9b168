"""What the README shows works."""

import re
import shlex
from pathlib import Path

import pytest

from robustmaps.cli._main import VERBS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    quick = code[1].replace("epochs=20", "epochs=1").replace("steps=20, restarts=5", "steps=1, restarts=1")
    assert quick != code[1]
    exec(compile(quick, "README.md", "exec"), {})
    assert re.search(r"\d+\.\d % \[", capsys.readouterr().out)


@pytest.mark.parametrize("line", re.findall(r"^    robustmaps (.*)$", README, re.MULTILINE))
def test_commands_name_verbs(line):
    assert shlex.split(line)[0] in VERBS


def test_links_to_files_hold():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target

"""Completion in a shell: the printed script, read by a real bash."""

import shlex
import shutil
import subprocess
from functools import cache

import pytest

from robustmaps.cli import main
from robustmaps.cli._main import VERBS

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")

# What bash does when Tab is pressed after the last word.
PRESS_TAB = """
function=$(complete -p robustmaps | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def completed(capsys, tmp_path):
    @cache
    def script():
        assert main(["--tyro-print-completion", "bash"]) == 0
        (tmp_path / "completion.bash").write_text(capsys.readouterr().out)

    def press_tab(*words):
        script()
        line = f"source completion.bash\nCOMP_WORDS=({shlex.join(['robustmaps', *words])}){PRESS_TAB}"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    return press_tab


@needs_bash
def test_verbs_options_and_choices_are_completed(completed):
    assert set(VERBS) <= set(completed(""))
    assert completed("ex") == ["explain", "export"]
    assert completed("train", "--def") == ["--defense", "--defense-parameters"]
    assert completed("evaluate", "--norm", "") == ["linf", "l2", "l1"]
    assert completed("data", "sh") == ["show"]
    assert completed("data", "show", "--pic") == ["--picture"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell, capsys):
    assert main(["--tyro-print-completion", shell]) == 0
    out = capsys.readouterr().out
    assert "--defense-parameters" in out


@pytest.mark.parametrize(("words", "hint"), [(["fsh"], "did you mean 'fish'"), ([], "Choices: bash, zsh, fish")])
def test_other_shells_are_refused(words, hint, capsys):
    assert main(["--tyro-print-completion", *words]) == 2
    assert hint in capsys.readouterr().err

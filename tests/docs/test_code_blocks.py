"""Every block of code on every page: commands are understood, files can be read, and nothing is left out in silence."""

import re
import subprocess
from dataclasses import replace

import pytest
import tyro

from robustmaps.cli import main
from robustmaps.cli._main import VERBS
from robustmaps.config import read_study
from tests.helpers.blocks import BLOCKS, PAGES, RUN, SHOWN, blocks

COMMANDS = sorted({tuple(words) for block in BLOCKS for words in block.commands() if block.kind not in SHOWN})
INLINE = {
    tuple(words.split())
    for text in PAGES.values()
    for part in re.findall(r"`robustmaps\s([^`]*)`", text)
    for words in part.split("&& robustmaps ")
} - {("VERB", "--help"), ("--tyro-print-completion", "SHELL")}


class Understood(BaseException):
    """The command was parsed to its end."""


@pytest.fixture
def understood(monkeypatch, tmp_path, capsys):
    """Whether the real parser of a verb takes the words; nothing is opened or computed."""
    cli = tyro.cli

    def parse(*arguments, **options):
        given = cli(*arguments, **options)
        if not options.get("return_unknown_args") and options["description"]:  # the last reading
            raise Understood
        return given

    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "RUN"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("epochs: 1\n")
    monkeypatch.setattr(tyro, "cli", parse)
    for verb in ("train", "search", "advise"):  # which open files before they know all options
        module = f"robustmaps.cli._verbs._{verb}.begin"
        begin = __import__("robustmaps.cli._terminal._begin", fromlist=["begin"]).begin

        def without_files(sources, base, model=None, _begin=begin):
            return _begin(replace(sources, config=None, init_from=None), base)

        monkeypatch.setattr(module, without_files)

    def check(*words):
        try:
            code = main(list(words))
        except Understood:
            return True
        except SystemExit as stop:
            code = stop.code
        return code == 0 or capsys.readouterr().err

    return check


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_understood(words, understood):
    assert understood(*words) is True


@pytest.mark.parametrize("words", sorted(INLINE), ids=" ".join)
def test_commands_in_sentences_are_understood(words, understood):
    """One without an option may be only the name of a verb."""
    assert words[0] in VERBS or words[0].startswith("--")
    assert not [word for word in words if word.startswith("--")] or understood(*words) is True


def test_misspelt_commands_are_not_understood(understood):
    assert understood("train", "--epoch", "3") is not True
    assert understood("evaluat", "runs/RUN") is not True
    assert understood("evaluate", "runs/RUN", "--norm", "l3") is not True
    assert understood("train", "--recipe", "at-resnet19") is not True


def test_all_pages_have_commands_and_files():
    assert len(COMMANDS) > 60
    assert len({block.page for block in BLOCKS}) > 20


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=str)
def test_studies_are_read(block, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(block.text)
    assert len(read_study(file).points) > 1


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind in ("sh", "bash")], ids=str)
def test_scripts_are_scripts(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "python"], ids=str)
def test_programs_are_programs(block):
    compile(block.text, str(block), "exec")


def test_every_kind_of_block_is_known():
    """A fence of another language would be left out without a word."""
    assert {block.kind for block in BLOCKS} <= RUN | SHOWN
    for page, text in PAGES.items():
        fenced = [block for block in BLOCKS if block.page == page and block.kind != "commands"]
        assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(fenced), page


def test_what_is_not_run_has_a_reason():
    reasons = {str(block): block.reason for block in BLOCKS if block.reason}
    assert len(reasons) == sum(text.count("<!-- not run:") for text in PAGES.values())
    assert all(len(reason.split()) > 3 for reason in reasons.values())


def test_blocks_are_found_with_their_files_and_reasons():
    text = (
        "# T\n\nThis is `a.py`:\n\n```python\nx = 1\n```\n\n    robustmaps models --json   # why\n"
        "    robustmaps enlarge A --save b && robustmaps train --init-from b\n\n"
        "<!-- not run: no GPU here -->\n```sh\nls \\\n  -l\n```\n"
    )
    first, second, third = blocks("p.md", text)
    assert (first.kind, first.file, first.text, first.line) == ("python", "a.py", "x = 1\n", 5)
    expected = [["models", "--json"], ["enlarge", "A", "--save", "b"], ["train", "--init-from", "b"]]
    assert list(second.commands()) == expected
    assert (third.kind, third.reason) == ("sh", "no GPU here")

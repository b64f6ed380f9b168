"""``robustmaps explain``: the pages that messages name, without a network."""

import json
import re
from pathlib import Path

import pytest

from robustmaps.cli import main
from robustmaps.engine.reading import pages as engine_pages
from robustmaps.engine.reading.pages import Page, pages

ROOT = Path(__file__).parents[2]
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py"))}


def shown(capsys, *words):
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def test_a_page_is_printed_without_its_markup(capsys):
    out = shown(capsys, "zero-gradients")
    assert "Does the loss have a gradient?" in out
    assert "What to do." in out
    assert "**" not in out
    assert ".md" not in out


@pytest.mark.parametrize("name", pages())
def test_every_page_is_found_by_its_name_and_by_its_path(name, capsys):
    by_name = shown(capsys, name)
    assert pages()[name].about
    assert len(by_name.split()) > 50
    assert "<!--" not in by_name
    (path,) = (path for path in (ROOT / "docs").rglob("*.md") if path.read_text(encoding="utf-8") == pages()[name].text)
    assert shown(capsys, str(path.relative_to(ROOT))) == by_name


def test_all_pages_are_listed(capsys):
    out = shown(capsys)
    assert set(re.findall(r"^ ([a-z-]+)  ", out, re.MULTILINE)) == {*pages(), "page"}  # and the heading of a column
    assert "Does the loss have a gradient?" in out
    listed = json.loads(shown(capsys, "--json"))["pages"]
    assert [each["page"] for each in listed] == list(pages())
    assert json.loads(shown(capsys, "chance", "--json"))["text"] == pages()["chance"].text


def test_every_file_of_the_documentation_has_a_name_of_its_own():
    files = [path for path in (ROOT / "docs").rglob("*.md") if path != ROOT / "docs" / "README.md"]
    assert len(pages()) == len(files)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("zero-gradient", "did you mean 'zero-gradients'"),
        ("docs/diagnose/chnce.md", "did you mean 'chance'"),
        ("teory", "did you mean 'theory'"),
        ("nothing-like-it", "Choices: diagnose"),
    ],
)
def test_other_names_are_refused(name, hint, capsys):
    assert main(["explain", name]) == 2
    assert hint in capsys.readouterr().err


def test_every_page_that_a_message_names_is_there():
    named = [name for text in SOURCES.values() for name in re.findall(r"robustmaps explain ([a-z][a-z-]*)", text)]
    named += [name for text in SOURCES.values() for name in re.findall(r"explain\([\"']([a-z-]+)[\"']\)", text)]
    assert len(named) >= 4
    assert set(named) <= set(pages())


def test_messages_name_no_file_that_an_installed_package_lacks():
    strings = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, text in SOURCES.items()
        for line in text.splitlines()
        if re.search(r"docs/[a-z-]+(/|\.md)", line) and "def page" not in line
    }
    assert {each for each in strings if "docs/diagnose/{self.name}.md" not in each} == set()


def test_links_become_what_can_be_typed():
    text = "# t\n\nSee [chance](chance.md), [the law](../theory.md#max), [x](https://a.b) and ![a map](images/m.png)."
    assert Page("t", text, False).alone == (
        "# t\n\nSee chance, the law (`robustmaps explain theory`), [x](https://a.b) and (picture: a map)."
    )


def test_a_copy_without_pages_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine_pages, "_FOLDERS", (tmp_path,))
    pages.cache_clear()
    try:
        assert main(["explain"]) == 2
        assert "expected an installed package or the whole source tree" in capsys.readouterr().err
    finally:
        pages.cache_clear()

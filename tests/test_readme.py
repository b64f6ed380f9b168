"""The README and the pages of docs: the example and links work, and sentences of the README are short.

Commands and programs on all pages are in tests/docs.
"""

import re

import pytest

from tests.helpers.blocks import PAGES, ROOT

README = PAGES["README.md"]
MOST_WORDS = 25
CODE = re.compile(r"^```.*?^```|^ {4}\S.*?$", re.MULTILINE | re.DOTALL)


def links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", PAGES[page])):
        if "://" not in target:
            yield target.partition("#")[::2]


def anchors(text):
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sentences(text):
    """What stands outside of code and tables, a list item or paragraph at a time, links as their words."""
    prose = re.sub(r"^(\||#).*$", "", CODE.sub("", text), flags=re.MULTILINE)
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    for part in re.split(r"\n\s*\n|^- ", prose, flags=re.MULTILINE):
        yield from re.split(r"(?<=[.!?])[*_]*\s+(?=\W*[A-Z])", " ".join(part.split()))


def test_the_python_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    quick = code[1].replace("epochs=20", "epochs=1").replace("steps=20, restarts=5", "steps=1, restarts=1")
    assert quick != code[1]
    exec(compile(quick, "README.md", "exec"), {})
    assert re.search(r"\d+\.\d % \[", capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for name, anchor in links(page):
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), name
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{name}#{anchor}"


def test_the_index_of_the_documentation_names_every_page():
    listed = {(ROOT / "docs" / name).resolve() for name, _ in links("docs/README.md")}
    pages = {(ROOT / page).resolve() for page in PAGES if page != "docs/README.md"}
    assert {page for page in pages if page.parent.name != "diagnose"} <= listed


def test_sentences_of_the_readme_are_short():
    found = list(sentences(README))
    assert len(found) > 20
    assert [text for text in found if len(re.findall(r"\S*\w\S*", text)) > MOST_WORDS] == []


def test_sentences_leave_out_code_and_tables():
    text = "# Title\n\nOne of\nfour words. Two [words](a/page.md).\n\n    code here\n\n| a | b |\n\n- item one\n- item"
    assert [part for part in sentences(text) if part] == ["One of four words.", "Two words.", "item one", "item"]

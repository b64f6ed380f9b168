"""The page as text: escaped, whole, and never written over anything else."""

import html.parser
import itertools

import pytest

from robustmaps.engine.errors import InputError
from robustmaps.report import render_markdown, render_page, write_report
from tests.helpers.pages import EVIL, some_page


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, and headings in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module", params=[("",), ("one", "two")], ids=["one part", "two parts"])
def outline(request):
    return Outline(render_page(some_page(EVIL, "b", titles=request.param)))


def test_names_are_text(outline):
    kinds = [attributes.get("type", "code") for attributes in outline.of("script")]
    assert kinds == ["code"]
    assert not {name for _, attributes in outline.tags for name in attributes if name.startswith("on")}


def test_markup_is_accessible(outline):
    levels = [int(tag[1]) for tag, _ in outline.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all(attributes.get("alt") for attributes in outline.of("img"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in outline.of("th"))
    assert len(outline.of("caption")) == len(outline.of("table"))
    assert all(attributes.get("aria-label") for attributes in outline.of("div") if attributes.get("role") == "img")
    fields = {attributes["id"] for attributes in outline.of("input")}
    assert fields == {attributes["for"] for attributes in outline.of("label")}
    identifiers = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {attributes["href"][1:] for attributes in outline.of("a")} <= set(identifiers)


def test_nothing_is_fetched(outline):
    sources = [attributes[name] for _, attributes in outline.tags for name in ("src", "href") if attributes.get(name)]
    assert {source[:5] for source in sources if not source.startswith("#")} == {"data:"}


def test_the_same_page_every_time():
    assert render_page(some_page("a", "b")) == render_page(some_page("a", "b"))


def test_files(tmp_path):
    path = write_report(tmp_path / "report", some_page("a", "b"))
    names = {file.name for file in (tmp_path / "report" / "tables").iterdir()}
    assert {"leaderboard.md", "leaderboard.tex", "leaderboard.csv", "radius.csv", "cascade.tex"} <= names
    assert "| a | 10 % [0, 100] |" in (tmp_path / "report" / "report.md").read_text()
    again = write_report(tmp_path / "report", some_page("c"))
    assert again == path
    assert "<h1>c</h1>" in path.read_text()
    assert not list(path.parent.glob(".*"))


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match="is not a report; name another folder with --out"):
        write_report(tmp_path, some_page("a"))
    assert (tmp_path / "index.html").read_text() == "mine"


def test_markdown_has_no_markup_of_its_names():
    assert "<script>" not in render_markdown(some_page(EVIL, "b")).split("## Leaderboard")[0]
    table = render_markdown(some_page(EVIL, "b")).split("## Leaderboard")[1].split("##")[0]
    assert "<script>" not in table


def test_a_page_is_light(outline):
    """With every kind of plot, far less than a library of plots weighs."""
    assert len(render_page(some_page("a", "b"))) < 200_000

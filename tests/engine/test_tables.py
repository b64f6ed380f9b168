"""Tables in every form: nothing in a cell may break out of it, and figures stay figures."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.engine.tables import Cell, Table, code_in_markdown, in_markdown, table
from robustmaps.engine.text import visible

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)


def test_figures_and_intervals_in_csv():
    rows = [("a", Cell("68.6 % [64.5, 72.8]", 68.6, (64.5, 72.8))), ("b", "-")]
    assert (
        table(("name", "robust"), rows).to_csv()
        == 'name,robust,"robust, low","robust, high"\na,68.6,64.5,72.8\nb,-,,\n'
    )


def test_latex_is_booktabs_with_everything_escaped():
    text = table(("a_b", "%"), [("50 % & more", Cell("1 [0, 2]", 1))], "a $5 table").to_latex("tab:x")
    assert r"\begin{tabular}{lr}" in text
    assert r"a\_b & \% \\" in text
    assert r"50 \% \& more & 1 {[}0, 2{]} \\" in text
    assert r"\caption{a \$5 table}" in text
    assert [rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:x}")] == [True] * 4


def test_text_is_aligned_and_figures_follow_words():
    made = table(("name", "n"), [("a", 1), ("bcd", 10)], words=1)
    assert str(made) == "name  n\na     1\nbcd   10"
    assert [made.is_figures(column) for column in (0, 1)] == [False, True]
    assert r"\begin{tabular}{lr}" in made.to_latex()


def test_a_row_that_does_not_fit():
    with pytest.raises(ValueError, match=r"row of 1 cells .*: expected 2"):
        Table(("a", "b"), (("1",),))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_csv_gives_back_any_text_and_computes_none(rows):
    read = list(csv.reader(io.StringIO(table(("a", "b"), rows).to_csv(), newline="")))
    cells = [cell for row in read[1:] for cell in row]
    texts = [visible(text) for row in rows for text in row]
    assert [cell.removeprefix("'") if cell != text else cell for cell, text in zip(cells, texts, strict=True)] == texts
    for cell in cells:
        lead = cell.lstrip()[:1]
        assert lead not in tuple("=+-@") or cell == "-" or isinstance(float(cell), float)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "  =1", "\uff1d1", "\r=1"])
def test_csv_has_no_formula(text):
    ((_, cell),) = list(csv.reader(io.StringIO(table(("a", "b"), [("1", text)]).to_csv(), newline="")))[1:]
    assert cell[:1] in ("'", "\\")


def test_negative_numbers_stay_numbers_in_csv():
    assert table(("a", "b", "c"), [("-1.5e-3", Cell("-1", -1.0), "-")]).to_csv().splitlines()[1] == "-1.5e-3,-1.0,-"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("`rm`", r"\`rm\`"),
        ("[a](http://b)", r"[a]\(http\://b)"),
        ("![a][b]", r"![a]\[b]"),
        ("[b]: javascript:x", r"[b]\: javascript:x"),
        ("<img src=x>", "&lt;img src=x>"),
        ("&#x202e;", "&amp;#x202e;"),
        ("# one", r"\# one"),
        ("1. one", r"1\. one"),
        ("www.evil.example", r"www\.evil.example"),
        ("a\x1b]8;;b\u202e", r"a\\x1b]8;;b\\u202e"),
        ("68.6 % [64.5, 72.8] of resnet_8 -1.5", "68.6 % [64.5, 72.8] of resnet_8 -1.5"),
    ],
)
def test_markdown_shows_text_as_it_is(text, escaped):
    assert in_markdown(text) == escaped


@given(TEXTS)
def test_code_in_markdown_ends_where_the_text_does(text):
    code = code_in_markdown(f"a`{text}``b")
    fence = re.match("`+", code)[0]
    assert code.endswith(fence)
    assert fence not in code[len(fence) : -len(fence)]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_no_text_breaks_a_markdown_or_latex_row(rows):
    made = table(("a", "b"), rows)
    lines = made.to_markdown().split("\n")[2:-1]
    assert len(lines) == len(rows)
    # A pipe counts where an even number of backslashes stands before it.
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}
    assert "<" not in made.to_markdown()
    body = made.to_latex().split("\\midrule\n")[1].split("\n\\bottomrule")[0].split("\n")
    assert len(body) == len(rows)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {1}

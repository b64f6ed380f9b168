"""Tables in every form: nothing in a cell may break out of it, and figures stay figures."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.engine.tables import Cell, Table, table

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
def test_csv_gives_back_any_text(rows):
    read = list(csv.reader(io.StringIO(table(("a", "b"), rows).to_csv(), newline="")))
    assert read == [["a", "b"], *map(list, rows)]


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

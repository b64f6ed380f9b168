"""LaTeX for a paper: chosen columns, the best in bold, true minus signs, and what the figures are; and it compiles."""

import shutil
import subprocess

import pytest

from robustmaps.cli import main
from robustmaps.engine.errors import InputError
from robustmaps.engine.tables import Cell, table
from robustmaps.report import report, write_report
from tests.helpers.pages import EVIL, some_page
from tests.helpers.studies import configuration, write_run

ODD = (
    "a_b & 50 % #1 $x$ {y} ~ ^ \\ <z> `q` 'r' \"s\" | --eps ''",
    "[c] é ß ł × · ÷ \u2212 ± ≤ ≥ ≈ ∞ → β Δ λ ω l_inf l_2 ₂ \u2013 …",
)


def rows(text):
    return [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r" \\")]


@pytest.fixture
def study(tmp_path):
    for upsample, robust in ((1, 40), (2, 55)):
        for seed in range(3):
            write_run(tmp_path / "study", configuration(upsample, seed), robust + seed)
    return tmp_path / "study"


def test_the_best_is_bold_as_far_as_it_is_shown():
    cells = [Cell("40.0 % [1, 2]", 40.04), Cell("41.2 % [1, 2]", 41.21), Cell("41.2 % [0, 3]", 41.16), "-"]
    made = table(("name", "robust", "clean"), [(n, c, Cell("7", 7.0)) for n, c in zip("abcd", cells, strict=True)])
    text = table(made.columns, made.rows, "Accuracy", best=("robust", "clean")).to_latex()
    robust = [row[1] for row in rows(text)[1:]]
    assert robust == [
        r"40.0 \% {[}1, 2{]}",
        r"\textbf{41.2 \% {[}1, 2{]}}",
        r"\textbf{41.2 \% {[}0, 3{]}}",
        "--",
    ]
    assert {row[2] for row in rows(text)[1:]} == {"7"}  # nothing is best where all are alike
    assert r"\caption{Accuracy. Bold: the highest of its column, also where it is within chance.}" in text
    assert "textbf" not in made.to_latex()
    assert "Bold" not in made.to_latex()


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("-9.5 [-12.1, -0.3]", "$-$9.5 {[}$-$12.1, $-$0.3{]}"),
        ("(-1) -.5", "($-$1) $-$.5"),
        ("ResNet-20 1e-05 3-4 a-b", "ResNet-20 1e-05 3-4 a-b"),
        ("--eps -1", "-{}-eps $-$1"),
        ("l_inf 8/255, l_2", r"$\ell_{\infty}$ 8/255, $\ell_{2}$"),
        ("model_inf", r"model\_inf"),
        ("β Λ \u03bf", "$\\beta$ $\\Lambda$ \u03bf"),
    ],
)
def test_numbers_have_a_minus_and_words_their_hyphens(text, made):
    assert rows(table(("a", "b"), [("x", text)]).to_latex())[1][1] == made


def test_columns_are_chosen(study):
    done = report(study, pictures=False, columns=["configuration", "gain", "robust"])
    text = (done.path.parent / "tables" / "leaderboard.tex").read_text()
    assert rows(text)[0] == ["configuration", "gain (points)", "robust"]
    assert r"\begin{tabular}{lrr}" in text
    assert "clean" in (done.path.parent / "tables" / "leaderboard.csv").read_text()  # the others have all
    assert "clean" in rows((done.path.parent / "tables" / "evaluations.tex").read_text())[0]
    before = done.path.read_bytes()
    with pytest.raises(InputError, match=r"robst.*did you mean.*robust"):
        report(study, pictures=False, columns=["robst"])
    with pytest.raises(InputError, match="each once"):
        report(study, pictures=False, columns=["robust", "robust"])
    assert done.path.read_bytes() == before
    assert main(["report", str(study), "--no-pictures", "--columns", "configuration, clean"]) == 0
    assert rows((done.path.parent / "tables" / "leaderboard.tex").read_text())[0] == ["configuration", "clean"]


def test_captions_have_the_attack_and_the_counts(study):
    tables = report(study, pictures=False).path.parent / "tables"
    for name in ("leaderboard", "runs", "differences", "cascade"):
        caption = next(line for line in (tables / f"{name}.tex").read_text().splitlines() if "caption" in line)
        assert r"PGD, $\ell_{\infty}$ 0.1, 100 test images" in caption, name
        assert ". ." not in caption, name
        assert caption.count("Brackets") <= 1, name
    assert "3 seeds" in (tables / "leaderboard.tex").read_text()
    assert "PGD, 100 test images" in (tables / "radius.tex").read_text()
    for line in rows((tables / "leaderboard.tex").read_text())[1:]:
        assert [cell.startswith(r"\textbf{") for cell in line][:2] == [False, "×" in line[0] or "times" in line[0]]


def test_characters_that_pdflatex_does_not_know_are_named():
    assert table(("a",), [("猫 b",)]).to_latex().startswith("% pdfLaTeX does not know these characters")
    assert table(("a",), [("é b",)]).to_latex().startswith(r"\begin{table}")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-recommended)"
)
def test_pdflatex_sets_every_table(study, tmp_path):
    made = [path.read_text() for path in (report(study, pictures=False).path.parent / "tables").glob("*.tex")]
    path = write_report(tmp_path / "odd", some_page(EVIL, *ODD))
    made += [each.read_text() for each in (path.parent / "tables").glob("*.tex")]
    made.append(table(("name", "n"), [(one, Cell("-1", -1.0)) for one in ODD], " ".join(ODD), best=("n",)).to_latex())
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs}\n\\begin{document}\n"
        + "\\clearpage\n".join(made)
        + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000

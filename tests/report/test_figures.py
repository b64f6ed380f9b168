"""Figures for a paper: as wide as its column, with their fonts, and written over nothing else."""

import re
from dataclasses import replace
from importlib.resources import files

import pytest

from robustmaps.cli import main
from robustmaps.engine.errors import InputError
from robustmaps.engine.measured import Measured
from robustmaps.figures import save_figure
from robustmaps.report import Chart, Gallery, cascade_chart, radius_chart, report, write_figures
from robustmaps.report.charts._paper import TINTS, draw_for_paper
from tests.helpers.pages import EVIL, some_page
from tests.helpers.studies import configuration, write_run

KINDS = ("trade-off", "cascade", "classes", "pictures")


def small_page():
    """One plot of points, one of bars along and one across, and a gallery."""
    page = some_page(EVIL, "b $x_1$")
    (part,) = page.parts
    sections = []
    for section in part.sections:
        kept = [b for b in section.blocks if isinstance(b, Gallery) or (isinstance(b, Chart) and b.name in KINDS)]
        sections.append(replace(section, blocks=tuple(kept)))
    return replace(page, parts=(replace(part, sections=tuple(sections)),))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "figures"
    return folder, write_figures(folder, small_page())


def test_every_plot_and_gallery_is_a_pdf_and_an_svg(drawn):
    folder, paths = drawn
    assert [path.stem.partition("-script")[0] for path in paths] == list(KINDS)
    names = {f"{path.stem}{form}" for path in paths for form in (".pdf", ".svg")}
    assert {path.name for path in folder.iterdir()} == names


def test_they_are_as_wide_as_a_column_and_have_their_fonts(drawn):
    for path in drawn[1]:
        content = path.read_bytes()
        left, _, right, _ = map(float, re.search(rb"/MediaBox \[ ?([^\]]*?) ?\]", content)[1].split())
        assert right - left == pytest.approx(3.25 * 72)
        assert b"/FontFile2" in content  # TrueType, embedded
        assert b"/Subtype /Type3" not in content
        svg = path.with_suffix(".svg").read_text()
        assert float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)[1]) == pytest.approx(3.25 * 72)
        assert "<text" not in svg  # letters are shapes
        assert "<script" not in svg


def test_the_same_plot_gives_the_same_file(drawn, tmp_path):
    page = small_page()
    chart = next(block for block in page.sections[1].blocks if block.name == "cascade")
    for form in (".pdf", ".svg"):
        save_figure(draw_for_paper(chart.plot), tmp_path / f"again{form}")
        assert (tmp_path / f"again{form}").read_bytes() == (drawn[0] / f"cascade{form}").read_bytes()


def test_a_plot_has_what_the_page_shows():
    half, none = Measured(0.5, 0.4, 0.6), Measured(0.1, 0.0, 0.2)
    chart = radius_chart([(n, [(0.0, half), (0.1, none)]) for n in ("net -1", "other")], "linf", "pgd")
    figure = draw_for_paper(chart.plot, 6.75)
    (axes,) = figure.axes
    assert figure.get_figwidth() == 6.75
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert [list(line.get_ydata()) for line in lines][:1] == [[50.0, 10.0]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["net -1", "other"]
    assert (axes.get_xlabel(), axes.get_ylim()) == (chart.plot.x.title, (0, 100))
    bars = draw_for_paper(cascade_chart([("a", [("robust", 0.7), ("pgd", 0.3)])], "pgd").plot).axes[0]
    assert [(round(bar.get_x()), round(bar.get_width())) for bar in bars.patches] == [(0, 70), (70, 30)]


def test_colours_are_those_of_the_page_on_white():
    css = files("robustmaps.report").joinpath("templates", "page.css").read_text()
    for name, colour in TINTS.items():
        found = re.search(rf"--{name if name.isalpha() else f'c{name}'}: (#\w+);", css)
        assert found[1] == colour


def test_other_files_are_left_alone_and_earlier_figures_replaced(drawn, tmp_path):
    folder, paths = drawn
    page = small_page()
    few = replace(page, parts=(replace(page.parts[0], sections=page.sections[2:3]),))
    for path in paths[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert [path.stem for path in write_figures(tmp_path, few)] == [paths[-1].stem]
    assert {path.stem for path in tmp_path.iterdir()} == {paths[-1].stem}
    (tmp_path / "mine.svg").write_text("<svg/>")
    with pytest.raises(InputError, match="is not a folder of figures; name another folder with --figures"):
        report(folder, pictures=False, figures=tmp_path)
    assert (tmp_path / "mine.svg").read_text() == "<svg/>"


def test_from_the_command_line(tmp_path, capsys):
    write_run(tmp_path / "study", configuration(), 40)
    assert main(["report", str(tmp_path / "study"), "--no-pictures", "--figures", str(tmp_path / "figures")]) == 0
    assert f"Figures: {tmp_path / 'figures'}" in capsys.readouterr().out
    assert b"/MediaBox [ 0 0 234 " in (tmp_path / "figures" / "radius.pdf").read_bytes()
    with pytest.raises(InputError, match=r"figure_width_in=0\.1"):
        report(tmp_path / "study", pictures=False, figures=tmp_path / "figures", figure_width_in=0.1)

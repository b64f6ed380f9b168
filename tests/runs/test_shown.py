"""What is shown in a notebook or an interpreter is one line, or a table, however many images there were."""

from robustmaps.evaluation import Evaluation
from robustmaps.runs import read_run
from tests.helpers.studies import configuration, verdicts, write_run


def evaluation(count, name="pgd"):
    attack = {"name": name, "norm": "linf", "eps": 8 / 255}
    return Evaluation(verdicts(count // 2, count), (None,) * count, "linf", 8 / 255, (attack,), "images", 0, 1.0)


def test_an_evaluation_is_one_line():
    shown = repr(evaluation(10_000))
    assert shown.startswith("Evaluation(pgd, linf 8/255, 10,000 images: clean 75.0 % [74.1, 75.8], robust 50.0 % [")
    assert "\n" not in shown
    assert len(shown) < 120


def test_an_evaluation_is_a_table_in_a_notebook():
    page = evaluation(100, "<b>mine")._repr_html_()
    assert "<td>75.0 % [" in page
    assert "<b>" not in page


def test_a_run_is_one_line(tmp_path):
    shown = repr(read_run(write_run(tmp_path, configuration(), 40)))
    assert "2 epochs, 2 evaluations" in shown
    assert len(shown) < 120 + len(str(tmp_path))

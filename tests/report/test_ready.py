"""A ready study is rendered from its runs: its table, its figure, and the page, which tells a small version apart."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from robustmaps.config import ready_studies, study_record
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.evaluation import Evaluation
from robustmaps.report import claim_ready, read_ready, report, report_ready
from robustmaps.studies import PlannedRun, SweepPlan
from robustmaps.studies._costs import RunEstimate
from tests.helpers.studies import write_run

ESTIMATE = RunEstimate(1, 1.0, 1.0)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """There are no weights to open."""
    monkeypatch.setattr("robustmaps.report.sections._pictures.open_evaluated", lambda *_: pytest.fail("opened"))


def made(name: str, out: Path, scale: str = "cpu", notes: tuple[str, ...] = ()) -> SweepPlan:
    """The runs of a small study with verdicts made up: each is more robust than the one before."""
    study = ready_studies()[name].study("cpu")
    runs = []
    for number, point in enumerate(study.points):
        folder = write_run(out / f"{name}-{scale}", point.config, 10 + number, flops=1000 * (number + 1))
        runs.append(PlannedRun(point, f"run {number}", folder, True, None, ESTIMATE))
    plan = SweepPlan(study, out / f"{name}-{scale}", tuple(runs), 1, 1, notes)
    record = study_record(study, {run.point.config.hash: run.folder.name for run in runs})
    (plan.out / "study.json").write_text(json.dumps(record))
    (plan.out / "study.yaml").write_text(study.text)
    return plan


def rows_of(page: Path, name: str) -> list[dict[str, str]]:
    with open(page.parent / "tables" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_table_has_the_configurations_in_the_order_of_the_study(tmp_path):
    plan = made("strides", tmp_path)
    result, page = report_ready(plan, ready_studies()["strides"], "cpu")
    rows = rows_of(page.path, "strides")
    assert [row["configuration"] for row in rows] == ["ResNet-8 122", "ResNet-8 112", "ResNet-8 111"]
    assert result.picture is None
    assert [float(row["PGD, eps 0.1"]) for row in rows] == [10, 11, 12]
    assert [float(row["clean"]) for row in rows] == [75, 75, 75]
    for ending in ("md", "tex"):
        assert "ResNet-8 111" in (page.path.parent / "tables" / f"strides.{ending}").read_text()


def test_an_evaluation_of_a_single_run_is_no_column(tmp_path):
    plan = made("strides", tmp_path)
    folder = plan.runs[0].folder / "evaluation"
    more = Evaluation.load(folder / "pgd-linf-0.1.json")
    replace(more, images_sha256="others").save(folder / "more.json")
    _, page = report_ready(plan, ready_studies()["strides"], "cpu")
    columns = [column for column in rows_of(page.path, "strides")[0] if not column.endswith((", low", ", high"))]
    assert columns == ["configuration", "seeds", "clean", "PGD, eps 0.1", "PGD, eps 0.2"]


@pytest.mark.parametrize("name", ["radii", "scale-factors"])
def test_a_curve_has_a_picture_and_its_figures(name, tmp_path):
    plan = made(name, tmp_path)
    result, page = report_ready(plan, ready_studies()[name], "cpu")
    assert (plan.out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert result.picture == f"{name}.png"
    assert 'class="picture"' in page.path.read_text()
    rows = rows_of(page.path, name)
    if name == "radii":
        assert [float(row["eps 0.1"]) for row in rows] == [10, 11, 12]
        assert [float(row["eps 0"]) for row in rows] == [75, 75, 75]
    else:
        robust = [row for row in rows if row["attack"] != "clean"]
        assert [float(robust[0][f"upsample {factor}"]) for factor in (1, 2, 3, 4)] == [10, 11, 12, 13]


def test_cost_is_beside_the_first_variant_of_a_network(tmp_path):
    _, page = report_ready(made("cost", tmp_path), ready_studies()["cost"], "cpu")
    text = (page.path.parent / "tables" / "cost.md").read_text()
    assert [f"(x {factor}.00)" in text for factor in (1, 2, 3)] == [True] * 3


def test_a_small_version_says_so_on_the_page_whoever_writes_it(tmp_path):
    plan = made("strides", tmp_path)
    result, page = report_ready(plan, ready_studies()["strides"], "cpu")
    assert "not a reproduction" in result.caution
    again = report(plan.out, tmp_path / "again")
    for path in (page.path, again.path):
        assert "This is not a reproduction" in path.read_text()
        assert "(small version)" in path.read_text()
    full = made("strides", tmp_path, "full", ("3 runs not as in their recipes any more: other data",))
    result, page = report_ready(full, ready_studies()["strides"], "full")
    assert result.caution is None
    assert "not a reproduction" not in page.path.read_text()
    assert "3 runs not as in their recipes any more: other data." in page.path.read_text()


def test_the_result_is_read_as_written_and_damage_is_said(tmp_path):
    plan = made("strides", tmp_path)
    result, _ = report_ready(plan, ready_studies()["strides"], "cpu")
    assert read_ready(plan.out) == result
    assert read_ready(tmp_path) is None
    (plan.out / "ready.json").write_text('{"name": "strides", "table": {"columns": [], "rows": [[{"value": 1}]]}}')
    with pytest.raises(InputError, match=r"ready\.json: .*missing"):
        read_ready(plan.out)


@pytest.mark.parametrize("file", ["ready.json", "strides.png", "report/notes.txt"])
def test_what_is_in_the_way_is_found_before_the_work(file, tmp_path):
    plan = made("strides", tmp_path / "other")
    free = SweepPlan(plan.study, tmp_path / "new", plan.runs, 1, 1, ())
    claim_ready(free, ready_studies()["strides"])
    (free.out / file).parent.mkdir(parents=True)
    (free.out / file).write_text("mine")
    with pytest.raises(InputError, match=file.partition("/")[0]):
        claim_ready(free, ready_studies()["strides"])


def test_only_a_picture_in_the_folder_is_shown(tmp_path):
    plan = made("radii", tmp_path)
    result, _ = report_ready(plan, ready_studies()["radii"], "cpu")
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    write_json(plan.out / "ready.json", replace(result, picture="../secret.png").to_dict())
    assert 'class="picture"' not in report(plan.out, tmp_path / "page").path.read_text()


def test_a_damaged_result_is_said_on_the_page(tmp_path):
    plan = made("strides", tmp_path)
    report_ready(plan, ready_studies()["strides"], "cpu")
    path = plan.out / "ready.json"
    path.write_text(path.read_text().replace("Strides of", "Figures of"))
    page = report(plan.out).page
    assert any("ready.json: damaged or edited" in warning for warning in page.warnings)
    assert "ready" not in {section.name for section in page.sections}

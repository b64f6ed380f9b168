"""One damaged run folder never takes the others down: it is named with the reason, and they are as without it."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

from robustmaps.cli import main
from robustmaps.config import to_mapping
from robustmaps.engine.errors import InputError
from robustmaps.report import report
from robustmaps.runs import list_runs, read_run, read_runs
from robustmaps.studies import compare_runs
from tests.helpers.damages import ANY_FILE, JSON, YAML, Damage, fields, with_field, written
from tests.helpers.studies import configuration, write_run

EVALUATION = "evaluation/pgd-linf-0.1.json"
DIAGNOSIS = "evaluation/diagnosis-linf-0.1.json"
LINE = '{{"epoch": 1, "validation_clean_accuracy": {}}}\n'

CASES: dict[str, tuple[str, Damage]] = {
    f"{Path(file).name}-{kind}": (file, damage)
    for file, damages in {
        "config.yaml": {**ANY_FILE, **YAML},
        "cost.json": {**ANY_FILE, **JSON, "none": with_field("flops", 0), "size": with_field("map_size", [1])},
        "environment.json": {**ANY_FILE, "list": JSON["list"], "nan": JSON["nan"], "twice": JSON["twice"]},
        EVALUATION: {**ANY_FILE, **JSON, "attacks": with_field("attacks", [{}]), "norm": with_field("norm", "l7")},
        DIAGNOSIS: {**ANY_FILE, **JSON, "findings": with_field("findings", [{"name": 1}])},
        "metrics.jsonl": {
            **ANY_FILE,
            "lists": written("[]\n[]\n"),
            "text": written(LINE.format('"x"')),
            "large": written(LINE.format("9" * 5000)),
            "nan": written(LINE.format("NaN")),
            "list": written(LINE.format("[1]")),
            "epoch": written('{"epoch": "x"}\n'),
        },
        "error.txt": {kind: ANY_FILE[kind] for kind in ("pipe", "socket", "device", "loop", "folder")},
        "evaluation": {kind: ANY_FILE[kind] for kind in ("pipe", "loop", "bytes")},
    }.items()
    for kind, damage in damages.items()
}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    for upsample, robust in ((1, 30), (2, 40)):
        write_run(folder, configuration(upsample), robust)
    return folder


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("third"), configuration(3), 20)
    (run / "environment.json").write_text('{"torch": "2.9"}')
    (run / DIAGNOSIS).write_text('{"format": 1, "findings": [{"name": "a", "verdict": "fine", "text": "b"}]}')
    return run


def damaged_run(third: Path, folder: Path, name: str) -> Path:
    """A run whose files are as they should be but for one."""
    run = shutil.copytree(third, folder / name)
    file, damage = CASES[name]
    damage(run / file)
    return run


def rows(folder: Path) -> tuple[dict[str, dict[str, object]], dict[Path, str]]:
    found: dict[Path, str] = {}
    runs = read_runs(folder, unreadable=found.__setitem__)
    return {str(row["name"]): row for row in list_runs(runs)}, found


def test_there_are_many_kinds_of_damage():
    assert len(CASES) >= 57


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_run_is_named_and_the_others_are_listed(
    name: str, healthy: Path, third: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    expected, nothing = rows(folder)
    assert not nothing
    run = damaged_run(third, folder, name)
    began = time.monotonic()
    found, unreadable = rows(folder)
    assert time.monotonic() - began < 2
    assert {key: found[key] for key in expected} == expected
    if name.startswith("diagnosis"):  # which only reports read
        return
    (path,) = unreadable
    assert path in (run, run / CASES[name][0])
    assert unreadable[path].strip()
    whole, other = (folder / key for key in expected)
    assert compare_runs(whole, other).robust.value != 0
    if path == run:
        with pytest.raises(InputError, match=re.escape(name)):
            read_run(run)


def test_all_of_them_at_once_are_reported_and_listed(
    healthy: Path, third: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    for name in CASES:
        damaged_run(third, folder, name)
    began = time.monotonic()
    done = report(folder, pictures=False)
    assert time.monotonic() - began < 20
    said = "\n".join(done.page.warnings)
    assert [name for name in CASES if name not in said and not name.startswith("diagnosis")] == []
    assert said.count("diagnosis-linf-0.1.json") >= sum(name.startswith("diagnosis") for name in CASES)
    assert "unreadable" in (folder / "report" / "index.html").read_text()

    assert main(["runs", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert [name for name in CASES if name not in listed and not name.startswith("diagnosis")] == []
    assert main(["runs", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["runs"]} >= {path.name for path in healthy.iterdir()}
    assert all(each["path"] and each["reason"] for each in found["unreadable"])


def test_no_field_of_an_evaluation_can_take_a_listing_or_a_report_down(healthy: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    run = write_run(folder, configuration(3), 20)
    whole = (run / EVALUATION).read_bytes()
    expected, _ = rows(folder)
    for index, (name, value) in enumerate(fields(run / EVALUATION)):
        (run / EVALUATION).write_bytes(whole)
        with_field(name, value)(run / EVALUATION)
        shutil.copy(run / EVALUATION, run / "evaluation" / f"odd-{index}.json")
    (run / EVALUATION).write_bytes(whole)
    found, unreadable = rows(folder)
    assert found.keys() == expected.keys()
    assert len(unreadable) > 100
    json.dumps(list(found.values()), allow_nan=False)
    assert "of 3 configurations" in report(folder, pictures=False).page.answer[0]


def test_comparing_with_a_damaged_run_names_it(
    healthy: Path, third: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    run = damaged_run(third, folder, "config.yaml-bomb")
    whole = next(iter(read_runs(healthy))).folder
    assert main(["compare", str(whole), str(run)]) == 2
    assert "config.yaml-bomb/config.yaml: not valid YAML (more than" in capsys.readouterr().err


def test_a_folder_of_damaged_runs_alone_is_reported_with_the_reasons(third: Path, tmp_path: Path) -> None:
    damaged_run(third, tmp_path, "config.yaml-pipe")
    with pytest.raises(InputError, match=r"no runs; .*\n.*config.yaml-pipe: unreadable: .*a pipe, socket or device"):
        report(tmp_path, pictures=False)


def test_a_link_to_a_folder_around_it_is_not_followed(healthy: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    (folder / "again").symlink_to(folder)
    (folder / "above").symlink_to("..")
    assert len(read_runs(folder)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the superuser")
@pytest.mark.parametrize("file", ["", "config.yaml", "evaluation", EVALUATION])
def test_what_may_not_be_read_is_named(file: str, healthy: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(healthy, tmp_path / "runs")
    run = write_run(folder, configuration(3), 20)
    (run / file).chmod(0)
    try:
        found, unreadable = rows(folder)
    finally:
        (run / file).chmod(0o755)
    assert len(found) >= 2
    assert unreadable


def test_a_configuration_of_odd_values_is_an_error(tmp_path: Path) -> None:
    for key in to_mapping(configuration()):
        for value in ("[[]]", "-1", "9" * 400, "2001-01-01", "x"):
            run = tmp_path / f"{key}{value[:9]}"
            run.mkdir()
            (run / "config.yaml").write_text(f"{key}: {value}\n")
    found, unreadable = rows(tmp_path)
    assert len(found) + len(unreadable) == 5 * len(to_mapping(configuration()))
    assert all(f"{path}/config.yaml" in reason for path, reason in unreadable.items())

"""Runs and studies that an earlier version wrote open, go on, are found again and are reported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import robustmaps
from robustmaps.config import from_mapping
from robustmaps.runs import folder_of
from robustmaps.training import RunFolder

WRITTEN = Path(__file__).parents[1] / "fixtures" / "version-0.1"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What was written by version 0.1, to be worked on."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


def robustmaps_json(folder: Path, *arguments: str) -> dict[str, Any]:
    source = Path(robustmaps.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{source}{os.pathsep}{folder}",
        "OMP_NUM_THREADS": "1",
        "ROBUSTMAPS_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, "-m", "robustmaps", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_study_is_complete_and_reported(copy: Path) -> None:
    before = {
        path: path.read_bytes() for path in (copy / "study").glob("*/**/*") if path.suffix in (".safetensors", ".json")
    }
    robustmaps_json(copy, "report", "study", "--out", "page")
    text = (copy / "page" / "report.md").read_text(encoding="utf-8")
    assert "tiny:network" in text
    assert "47.5 % [0.0, 100.0]" in text
    swept = robustmaps_json(copy, "sweep", "study.yaml", "--out", "study", "--allow-code")
    assert (swept["made"], swept["before"], swept["failed"]) == ([], 4, {})
    listed = robustmaps_json(copy, "runs", "study")["runs"]
    assert len(listed) == 4
    assert {path: path.read_bytes() for path in before} == before


def test_an_evaluation_is_found_again(copy: Path) -> None:
    run = next((copy / "study").glob("*network-at-seed0-*"))
    options = ("--attack", "pgd", "--steps", "5", "--eps", "0.02,0.05", "--samples", "40", "--batch-size", "256")
    files = sorted((run / "evaluation").glob("*.json"))
    result = robustmaps_json(copy, "evaluate", str(run), *options, "--allow-code")
    assert [one["robust_accuracy"]["value"] for one in result["curve"]] == [0.65, 0.525]
    assert sorted((run / "evaluation").glob("*.json")) == files


@pytest.mark.slow
def test_a_stopped_run_goes_on(copy: Path) -> None:
    run = next((copy / "stopped").iterdir())
    before = RunFolder(run).read_history()
    assert len(before) == 58
    robustmaps_json(copy, "train", "--resume", str(run), "--allow-code")
    after = RunFolder(run).read_history()
    assert len(after) == 400
    assert after[:58] == before
    assert "from epoch 59, step 2" in (run / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", json.loads((WRITTEN / "folders.json").read_text(encoding="utf-8")), ids=str)
def test_a_configuration_has_the_folder_that_it_had(row: dict[str, Any]) -> None:
    assert folder_of(from_mapping(row["given"]), "runs").name == row["folder"]

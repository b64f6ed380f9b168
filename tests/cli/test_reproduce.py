"""Ready studies on the command line: their list, how they are told from runs, what is refused, and what is made."""

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from robustmaps.cli import main
from robustmaps.config import ReadyStudy, ready_studies
from robustmaps.engine.errors import InputError
from robustmaps.engine.reading.declared import declared
from robustmaps.report import report
from tests.helpers.studies import Here

TINY = """\
also: table-2
title: Strides
about: Strides.
shows: accuracy
operations: {full: 1.0, cpu: 1.0}
full: {axes: {recipe: [at-resnet18-1222]}}
cpu:
  axes: {strides: [122]}
  fixed: {train_samples: 128, epochs: 1, eps: 0.15, steps: 1, device: cpu, precision: fp32}
  evaluation: {attack: fgsm, samples: 30}
"""


def test_the_list_has_names_runs_and_cost(capsys):
    assert main(["reproduce", "--list", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["studies"]}
    assert list(listed) == list(ready_studies())
    assert (listed["strides"]["also"], listed["strides"]["runs"]) == ("table-2", {"full": 20, "cpu": 3})
    assert listed["strides"]["flops"]["full"] > 1e19
    assert main(["reproduce", "--list"]) == 0
    text = capsys.readouterr().out
    assert "EFLOP" in text
    assert "not a reproduction" in text
    assert "those in the paper are not known here" in " ".join(text.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected a run folder or a ready study"),
        ("strides", "give --scale cpu for a small version, or --scale full"),
        ("stride --scale cpu", "did you mean 'strides'?"),
        ("runs/none", "runs/none"),
        ("strides --scale cpu --data d.npz", "--scale cpu uses embedded images"),
        ("strides --scale cpu --epochs 1", "strides is a ready study; leave out --epochs"),
        ("strides --scale cpu --jobs 0", "jobs=0"),
        ("strides --scale full --corruptions c", "only the full study corruptions takes it"),
        ("corruptions --scale cpu --corruptions c", "only the full study corruptions takes it"),
        ("corruptions --scale full", "give --corruptions, the folder of CIFAR-10-C"),
        ("strides --list", "leave out strides"),
        ("--list --scale cpu", "leave out --scale"),
        ("folder --scale cpu --jobs 2", "folder is a run folder, no ready study; leave out --scale, --jobs"),
    ],
)
def test_what_does_not_go_together_is_refused(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert main(["reproduce", *line.split()]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["folder"]


def test_missing_images_are_said_with_the_way_to_give_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robustmaps.studies._plan.load_data", _absent)
    assert main(["reproduce", "strides", "--scale", "full"]) == 2
    assert "--data takes the images from elsewhere" in capsys.readouterr().err
    assert not list(Path().iterdir())


def _absent(config, **_):
    raise InputError(f"{config.data}: not here")


def test_a_path_that_exists_is_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("strides").mkdir()
    assert main(["reproduce", "strides"]) == 2
    assert "--scale" not in capsys.readouterr().err


@pytest.fixture
def tiny(monkeypatch):
    """A ready study of one run that takes a second, and a page without pictures of the network."""
    study = declared(ReadyStudy, {**yaml.safe_load(TINY), "name": "strides"})
    monkeypatch.setattr("robustmaps.cli._verbs._reproduce.find_ready", lambda _: study)
    monkeypatch.setattr("robustmaps.studies._sweep.LocalExecutor", lambda *_: Here())
    monkeypatch.setattr("robustmaps.studies._plan.measure_all", lambda estimates, *_, **__: estimates)
    monkeypatch.setattr("robustmaps.report._ready.report", partial(report, pictures=False))


def test_a_study_is_planned_made_and_made_only_once(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "table-2", "--scale", "cpu", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "table-2 is strides" in out
    assert "not a reproduction" in out
    assert not list(Path().iterdir())
    for made in (1, 0):
        assert main(["reproduce", "table-2", "--scale", "cpu", "--jobs", "1", "--json"]) == 0
        captured = capsys.readouterr()
        done = json.loads(captured.out)
        assert (len(done["made"]), done["before"]) == (made, 1 - made)
        assert (done["study"], done["scale"], done["reproduction"]) == ("strides", "cpu", False)
        assert "not a reproduction" in captured.err
        assert [row[0] for row in done["table"]["rows"]] == ["ResNet-8"]
        assert all(Path(file).is_file() for file in done["files"])
        assert "This is not a reproduction" in Path(done["page"]).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ready_studies())
def test_every_small_version_ends_with_its_table(name, tmp_path, capsys):
    assert main(["reproduce", name, "--scale", "cpu", "--out", str(tmp_path), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    study = ready_studies()[name]
    assert done["failed"] == {}
    assert "not a reproduction" in done["caution"]
    assert done["table"]["rows"]
    assert all(Path(file).is_file() for file in done["files"])
    pictures = [file for file in done["files"] if file.endswith(".png")]
    assert len(pictures) == (study.shows not in ("accuracy", "cost"))
    assert study.title in Path(done["page"]).read_text(encoding="utf-8")

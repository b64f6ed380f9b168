"""No output replaces another file, and a stopped process is in nobody's way."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robustmaps.config import AttackConfig, RunConfig, Surgery, from_mapping
from robustmaps.engine.errors import InputError
from robustmaps.engine.writing.outputs import LOCK, alone
from robustmaps.evaluation import Evaluation
from robustmaps.networks import claim_enlarged, enlarge_network, save_enlarged
from robustmaps.report import report
from robustmaps.runs import Options, evaluate_checkpoint, evaluate_curve, export, reproduce, train
from robustmaps.studies import sweep
from robustmaps.training import RunFolder

FGSM = AttackConfig("fgsm")
CONFIG = from_mapping({"epochs": 1, "defense": "standard"}, RunConfig())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def copied(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / run.name))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def no_work(progress):
    pytest.fail(f"{progress.phase} was begun")


FEW = Options(samples=20, device="cpu")
REFUSED = Options(samples=20, device="cpu", save_adversarials=True, watcher=no_work)


@pytest.mark.parametrize("out", ["best.json", "config.yaml", "cost.json", "k.json", "info.json", "same.safetensors"])
def test_evaluations_replace_nothing(copied, out):
    (copied / "k.partial").mkdir()
    (copied / "k.partial" / "mine.txt").write_text("mine")
    (copied / "info.model_info.json").write_text("[]")
    before = contents(copied)
    with pytest.raises(InputError, match=r"already exists|exists and is not|two outputs|not an evaluation"):
        evaluate_checkpoint(copied, FGSM, REFUSED, out=copied / out)
    assert contents(copied) == before


@pytest.mark.parametrize("folder", ["k.partial", "k.adversarials.partial"])
@pytest.mark.parametrize("name", ["adversarials.npy", "state.json"])
def test_the_folder_of_a_state_is_known_by_its_contents(run, tmp_path, folder, name):
    (tmp_path / folder).mkdir()
    np.save(tmp_path / "mine.npy", np.zeros((20, 1, 8, 8), np.float32))
    shutil.move(tmp_path / "mine.npy", tmp_path / folder / name)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f"{folder}: exists and is not the intact state of an evaluation"):
        evaluate_checkpoint(run, FGSM, REFUSED, out=tmp_path / "k.json")
    assert contents(tmp_path) == before


def test_images_that_were_kept_before_the_first_state_are_known_as_ours(run, tmp_path, monkeypatch):
    options = replace(REFUSED, watcher=Options().watcher)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("robustmaps.runs._evaluation.evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_checkpoint(run, FGSM, options, out=tmp_path / "k.json")
    assert list(contents(tmp_path)) == ["k.adversarials.partial/adversarials.npy"]
    done = evaluate_checkpoint(run, FGSM, options, out=tmp_path / "k.json")
    assert done.evaluation.saved
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["c.json", "c.png"])
def test_curves_replace_nothing(run, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} already exists"):
        evaluate_curve(run, AttackConfig("fgsm", eps=(0.1, 0.2)), REFUSED, out=tmp_path / "c.json")
    assert contents(tmp_path) == {name: b"mine"}


def test_images_of_another_evaluation_stay(run, tmp_path):
    options = Options(samples=20, device="cpu", save_adversarials=True)
    done = evaluate_checkpoint(run, FGSM, options, out=tmp_path / "k.json")
    done.path.unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"k.safetensors already exists"):
        evaluate_checkpoint(run, AttackConfig("fgsm", eps=(0.3,)), options, out=tmp_path / "k.json")
    assert contents(tmp_path) == before
    assert evaluate_checkpoint(run, FGSM, options, out=tmp_path / "k.json").evaluation.verdicts


@pytest.mark.filterwarnings("ignore::robustmaps.EnlargeWarning")
def test_an_enlarged_network_replaces_nothing(tmp_path):
    done = enlarge_network("resnet8", Surgery(upsample=2), latency_runs=0)
    files = save_enlarged(done, tmp_path / "mine")
    before, times = contents(tmp_path), [path.stat().st_mtime_ns for path in files]
    save_enlarged(done, tmp_path / "mine")  # as after a kill at the very end
    assert [path.stat().st_mtime_ns for path in files] == times
    other = enlarge_network("resnet8", Surgery(upsample=2), seed=1, latency_runs=0)
    with pytest.raises(InputError, match=r"mine: contains another result \(recipe.json differs\)"):
        save_enlarged(other, tmp_path / "mine")
    assert contents(tmp_path) == before
    files[1].unlink()
    with pytest.raises(InputError, match="mine: exists and is not an earlier result of this kind"):
        save_enlarged(done, tmp_path / "mine")


@pytest.mark.filterwarnings("ignore::robustmaps.EnlargeWarning")
def test_a_folder_is_not_published_through_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with pytest.raises(InputError, match="link: a link, which a new folder can't replace; name the folder that"):
        claim_enlarged(tmp_path / "link")


@pytest.mark.filterwarnings("ignore::robustmaps.EnlargeWarning")
def test_an_enlarged_network_is_not_put_among_other_files(copied):
    before = contents(copied)
    done = enlarge_network("resnet8", Surgery(upsample=2), latency_runs=0)
    for folder in (copied, copied.parent):  # where its weights would be taken for those of the run
        with pytest.raises(InputError, match="exists and is not an earlier result of this kind; name another folder"):
            save_enlarged(done, folder)
    assert contents(copied) == before


def test_the_tables_of_a_report_are_not_written_through_a_link(copied, tmp_path):
    report(copied, tmp_path / "page")
    (tmp_path / "page" / "tables").rename(tmp_path / "paper")
    (tmp_path / "page" / "tables").symlink_to(tmp_path / "paper")
    before = contents(tmp_path / "paper")
    with pytest.raises(InputError, match="tables: exists and is not a folder of this report"):
        report(copied, tmp_path / "page")
    assert contents(tmp_path / "paper") == before


def test_a_run_replaces_nothing(run, copied, tmp_path):
    before = contents(copied)
    (copied / "last.pt").unlink()
    with pytest.raises(InputError, match=r"metrics.jsonl already exists"):
        train(CONFIG, tmp_path)
    (copied / "metrics.jsonl").unlink()  # killed before they were written
    train(CONFIG, tmp_path)
    assert contents(copied).keys() == before.keys()
    other = tmp_path / "others" / run.name
    other.mkdir(parents=True)
    (other / "best.safetensors").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a run folder"):
        train(CONFIG, other.parent)
    assert contents(other) == {"best.safetensors": b"mine"}


@pytest.mark.parametrize("where", ["", "evaluation", "some/folder"])
def test_a_run_is_not_put_into_another(copied, where):
    before = contents(copied)
    with pytest.raises(InputError, match=rf"seed1-\w+: is inside the run \S+{copied.name}; choose a folder of its"):
        train(from_mapping({"seed": 1}, CONFIG), copied / where)
    with pytest.raises(InputError, match="is inside the run"):
        reproduce(copied, copied / where)
    assert contents(copied) == before


@pytest.mark.parametrize("name", ["study.yaml", "study.json"])
def test_a_sweep_replaces_nothing(tmp_path, name):
    (tmp_path / name).write_text("{}")
    plan = SimpleNamespace(out=tmp_path, missing=[], study=SimpleNamespace(text="axes: {seed: [0]}"))
    with pytest.raises(InputError, match=f"{name} already exists"):
        sweep(plan)
    assert contents(tmp_path) == {name: b"{}"}


def test_an_evaluation_is_whole_once_its_verdicts_are_there(run, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    out, info = tmp_path / "k.json", tmp_path / "k.model_info.json"
    with monkeypatch.context() as patched:
        patched.setattr(Evaluation, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_checkpoint(run, FGSM, FEW, out=out)
    assert info.exists()
    evaluate_checkpoint(run, FGSM, FEW, out=out)
    assert sorted(contents(tmp_path)) == ["k.json", "k.model_info.json"]
    about = json.loads(info.read_text())
    info.unlink()
    assert evaluate_checkpoint(run, FGSM, FEW, out=out).before
    assert json.loads(info.read_text()) == about


def test_what_a_process_left_that_was_killed_at_the_very_end_is_removed(run, tmp_path):
    done = evaluate_checkpoint(run, FGSM, FEW, out=tmp_path / "k.json")
    for name in ("state.json", "adversarials.npy"):
        left = tmp_path / "k.adversarials.partial" / name
        left.parent.mkdir()
        left.write_bytes(b"left")
        assert evaluate_checkpoint(run, FGSM, FEW, out=tmp_path / "k.json").evaluation == done.evaluation
        assert sorted(contents(tmp_path)) == ["k.json", "k.model_info.json"]


def test_a_second_process_is_told(run, tmp_path):
    out = tmp_path / "k.json"
    told = "another process is {}; wait for it or stop it"
    with alone(tmp_path / "k.partial" / LOCK, ""), pytest.raises(InputError, match=told.format("at this evaluation")):
        evaluate_checkpoint(run, FGSM, FEW, out=out)
    evaluate_checkpoint(run, FGSM, FEW, out=out)
    with alone(tmp_path / "page" / LOCK, ""), pytest.raises(InputError, match=told.format("writing this report")):
        report(run, tmp_path / "page", pictures=False)
    report(run, tmp_path / "page", pictures=False)
    assert not list(tmp_path.rglob(LOCK))


def test_a_report_leaves_the_files_of_others(run, tmp_path):
    page = tmp_path / "page"
    report(run, page, pictures=False)
    written = contents(page)
    (page / "tables" / "notes.csv").write_text("mine")
    for suffix in ("md", "tex", "csv"):
        (page / "tables" / f"former.{suffix}").write_text("of an earlier page")
    report(run, page, pictures=False)
    assert contents(page) == {**written, "tables/notes.csv": b"mine"}


def test_a_stopped_export_goes_on(run, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("robustmaps.runs._export.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            export(run, "safetensors", tmp_path / "out")
    left = tmp_path / ".out.abc.robustmaps.tmp"  # of a killed one
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    assert export(run, "safetensors", tmp_path / "out").path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_folder_that_is_only_begun_is_no_stranger(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.log("begun")
    folder.claim()

"""Run folders as they are found: finished, half written, held, failed, foreign."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from filelock import FileLock

from robustmaps.config import AttackConfig, DefenseConfig, RunConfig, read_run_config, write_run_config
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json, write_text
from robustmaps.engine.reading.plain import read_json
from robustmaps.runs import Options, evaluate_checkpoint, read_run, read_runs, train
from robustmaps.training import RunFolder, TrainOptions

CONFIG = RunConfig(
    defense=DefenseConfig(eps=0.1, steps=1),
    training=TrainOptions(epochs=1, batch_size=512, device="cpu", precision="fp32"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = train(CONFIG, tmp_path_factory.mktemp("runs"))
    done = evaluate_checkpoint(run.folder, AttackConfig("fgsm"), Options(samples=20, device="cpu"))
    return run, done


@pytest.fixture
def folder(trained, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(trained[0].folder, tmp_path / trained[0].folder.name)


def test_a_finished_run(trained):
    run, done = trained
    record = read_run(run.folder)
    assert record.config == run.config
    assert (record.status, record.error, record.best_epoch) == ("finished", None, run.fit.best_epoch)
    assert record.seconds == pytest.approx(run.fit.seconds)
    assert list(record.history) == [dict(epoch) for epoch in run.fit.history]
    assert record.evaluations == {done.path.stem: done.evaluation}
    assert record.environment["torch"]
    assert record.recorded_cost["flops"] > 1e6
    (run.folder / "cost.json").rename(run.folder / "cost.bak")
    try:
        assert read_run(run.folder).recorded_cost is None
    finally:
        (run.folder / "cost.bak").rename(run.folder / "cost.json")


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_finished_run_that_lacks_epochs_is_told(folder, left):
    folder = folder.rename(folder.with_name("three"))
    config = read_run_config(folder / "config.yaml")
    write_run_config(folder / "config.yaml", replace(config, training=replace(config.training, epochs=3)))
    line = {"train_s": 1.0, "validation_clean_accuracy": 0.5}
    files = RunFolder(folder)
    files.write_history([{"epoch": epoch, **line} for epoch in (1, 2, 3)])
    assert read_run(folder).status == "finished"
    files.metrics.write_text("".join(files.metrics.read_text().splitlines(keepends=True)[:left]))
    said = []
    record = read_run(folder, unreadable=lambda path, reason: said.append((path.name, reason)))
    assert (record.status, len(record.history)) == ("stopped", left)
    assert said[0][0] == "metrics.jsonl"
    assert "empty" in said[0][1] if left == 0 else f"{left} of 3 epochs, though log.txt says" in said[0][1]
    # A run that was stopped has no such line.
    log = folder / "log.txt"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "finished" not in line))
    said.clear()
    read_run(folder, unreadable=lambda path, reason: said.append(reason))
    assert len(said) == (left == 0)


def test_stopped_running_and_failed(folder):
    (folder / "metrics.jsonl").unlink()
    (folder / "log.txt").unlink()
    assert read_run(folder).status == "stopped"
    with FileLock(folder / ".lock"):
        assert read_run(folder).status == "running"
    (folder / "error.txt").write_text("Diverged: the loss became nan")
    record = read_run(folder)
    assert (record.status, record.error, record.best_epoch) == ("failed", "Diverged: the loss became nan", None)


def test_a_finished_run_whose_evaluation_failed_is_a_failed_one(folder):
    (folder / "error.txt").write_text("OutOfMemoryError: no memory")
    assert read_run(folder).status == "failed"
    assert not train(CONFIG, folder.parent, resume=True).fit.history[1:]
    assert read_run(folder).status == "finished"


def test_evaluations_of_earlier_weights_are_left_out(folder):
    (path,) = (p for p in (folder / "evaluation").glob("*.json") if "model_info" not in p.name)
    write_json(path.with_name("older.json"), {**read_json(path), "checkpoint_sha256": "0" * 64})
    skipped = {}
    record = read_run(folder, skipped=lambda path, reason: skipped.setdefault(path.name, reason))
    assert list(record.evaluations) == [path.stem]
    assert skipped == {"older.json": "it is of weights that are no longer in the run; evaluate again"}
    # Alone it is found out by the time at which the weights were written.
    path.unlink()
    os.utime(folder / "best.safetensors", (2e9, 2e9))
    assert read_run(folder, skipped=lambda *_: None).evaluations == {}


def test_what_is_half_written_is_named_and_the_rest_is_read(folder):
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + whole[: len(whole) // 2])
    (folder / "environment.json").write_text('{"torch": ')
    (folder / "evaluation" / "pgd.json").write_text('{"verdicts": [')
    (folder / "evaluation" / "list.json").write_text("[]")
    write_text(folder.parent / "notes" / "paper.txt", "")
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "config.yaml").write_text("epoch: 3")
    (folder.parent / ".hidden").mkdir()
    shutil.copytree(folder, folder.parent / "inner" / "run")
    skipped = {}
    records = read_runs(folder.parent, skipped=lambda path, reason: skipped.setdefault(path.name, reason))
    assert [record.name for record in records] == [folder.name, "run"]
    assert [len(record.history) for record in records] == [1, 1]
    assert records[0].environment == {}
    assert len(records[0].evaluations) == 1
    assert set(skipped) == {"notes", "broken", "metrics.jsonl", "environment.json", "pgd.json", "list.json"}
    assert "did you mean 'epochs'" in skipped["broken"]


def test_by_default_what_is_skipped_is_a_warning(tmp_path):
    write_text(tmp_path / "notes" / "paper.txt", "")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="notes: skipped, not a run folder"):
        assert read_runs(tmp_path) == ()


def test_the_best_epoch_is_the_one_that_training_kept(folder):
    folder = folder.rename(folder.with_name("four"))
    config = read_run_config(folder / "config.yaml")
    write_run_config(folder / "config.yaml", replace(config, training=replace(config.training, epochs=4)))
    figures = [(0.5, 0.9), (None, None), (0.6, 0.7), (0.6, 0.7)]
    lines = []
    for epoch, (robust, clean) in enumerate(figures, 1):
        found = {"validation_robust_accuracy": robust, "validation_clean_accuracy": clean} if clean else {}
        lines.append(json.dumps({"epoch": epoch, "train_s": 1.0, **found}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    record = read_run(folder)
    assert (record.best_epoch, record.seconds, record.status) == (3, 4.0, "finished")


@pytest.mark.parametrize("make", ["missing", "empty"])
def test_what_is_no_run_is_refused(tmp_path, make):
    with pytest.raises(InputError, match="not a run folder" if make == "empty" else "no such folder"):
        (read_run if make == "empty" else read_runs)(tmp_path if make == "empty" else tmp_path / "nowhere")


def test_reading_needs_no_torch(folder):
    code = (
        "import sys; from robustmaps.runs import read_runs; r = read_runs(sys.argv[1]); "
        "print(len(r), len(r[0].evaluations), 'torch' in sys.modules, 'scipy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["1", "1", "False", "False"]


def test_a_report_among_the_runs_is_no_reason_to_warn(tmp_path):
    (tmp_path / "report" / "tables").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("")
    assert read_runs(tmp_path) == ()

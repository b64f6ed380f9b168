"""Sweeps: nothing twice, nothing lost, whatever happens on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from filelock import FileLock

from robustmaps.cli import main
from robustmaps.config import read_study
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.networks._data import load_data
from robustmaps.runs import read_run, read_runs, reproduce
from robustmaps.studies import plan_sweep, statistics_of, sweep
from robustmaps.studies._processes import LocalExecutor, TaskOutcome
from robustmaps.studies._progress import Board
from tests.helpers.damages import BOMB
from tests.helpers.studies import Here, assert_same

FIXED = "{data: digits, batch-size: 256, defense: standard, epochs: 1, device: cpu, precision: fp32}"
EVALUATION = "{attack: fgsm, samples: 40}"
SEEDS = f"axes: {{seed: [0, 1]}}\nfixed: {FIXED}\nevaluation: {EVALUATION}\n"


@pytest.fixture
def study(tmp_path):
    def write(text=SEEDS):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def make(path, **kwargs):
    return sweep(plan_sweep(read_study(path), path.with_suffix(""), threads=1), executor=Here(), **kwargs)


def state_of(folder: Path):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock") and path.name not in ("study.yaml", "study.json")
    }


@pytest.mark.parametrize(
    ("defense", "passes"),
    [
        ("standard", 3),
        ("at", 2 * 4 + 3),
        ("alp", 2 * 4 + 2 * 3),
        ("trades", 1 + 2 * 4 + 2 * 3),
        ("trades-awp", 1 + 2 * 4 + 2 * 2 * 3),
        ("fast-at", 2 + 3),
        ("free-at", 8 * 3),
        ("dajat", 3 * (1 + 2 * 5 + 2 * 3)),
        ("dajat-awp", 3 * (1 + 2 * 5 + 2 * 3) + 2 * 3),
    ],
)
def test_operations_of_training_are_those_counted_by_hand(study, defense, passes):
    count = "" if defense.startswith(("standard", "fast", "free", "dajat")) else "steps: 4, "
    fixed = f"{{data: digits, batch-size: 256, eps: 0.1, {count}epochs: 2, validate-every: 2, defense: {defense}}}"
    path = study(f"axes: {{seed: [0]}}\nfixed: {fixed}\nevaluation: {EVALUATION}\n")
    (run,) = plan_sweep(read_study(path), path.with_suffix(""), threads=1).runs
    data = load_data(run.point.config.data)
    # Validation sees clean images, and those of the attack that it makes: the same one, or PGD of 10 steps.
    steps = {"standard": 0, "at": 4, "alp": 4}.get(defense, 10)
    expected = 2 * len(data.train) * passes + len(data.validation) * (1 + 2 * steps)
    assert run.estimate.training_flops / run.estimate.image_flops == pytest.approx(expected, rel=0.02)


def test_all_runs_are_made_evaluated_and_recorded(study):
    path = study()
    plan = plan_sweep(read_study(path), path.with_suffix(""), jobs=2, threads=1)
    assert not path.with_suffix("").exists()
    assert len(plan.missing) == 2
    assert plan.seconds > 0
    assert plan.missing[0].estimate.measured == "3 timed steps with 1 thread"
    states = []
    result = sweep(plan, executor=Here(), watcher=states.append)
    out = path.with_suffix("")
    records = read_runs(out)
    assert [record.config.training.seed for record in records] == [0, 1]
    for record in records:
        (evaluation,) = record.evaluations.values()
        assert len(evaluation.verdicts) == 40
    assert (len(result.made), result.before, result.failed) == (2, 0, {})
    assert (states[-1].done, states[-1].failed, states[-1].total, states[-1].running) == (2, 0, 2, {})
    assert states[-1].event.startswith("done: ResNet-8 · seed 1: ")
    assert states[-1].best[1] == max(s.robust_accuracy.value for r in records for s in r.evaluations.values())
    assert (out / "study.yaml").read_text() == SEEDS
    about = json.loads((out / "study.json").read_text())
    assert about["keys"] == ["seed"]
    assert {(run["folder"], run["values"]["seed"]) for run in about["runs"]} == {
        (record.name, record.config.training.seed) for record in records
    }


def test_nothing_is_made_twice_and_a_study_grows(study):
    path = study()
    make(path)
    out = path.with_suffix("")
    before = state_of(out)
    states = []
    assert make(path, watcher=states.append).before == 2
    rates = [e.robust_accuracy.value for record in read_runs(out) for e in record.evaluations.values()]
    assert states[0].best[1] == max(rates)
    assert state_of(out) == before
    study(SEEDS.replace("[0, 1]", "[0, 1, 2]").replace(EVALUATION, f"[{EVALUATION}, {{attack: fgsm, samples: 30}}]"))
    assert len(make(path).made) == 3
    after = state_of(out)
    assert {name: after[name] for name in before if name.name != "log.txt"} == {
        name: value for name, value in before.items() if name.name != "log.txt"
    }
    assert [len(record.evaluations) for record in read_runs(out)] == [2, 2, 2]
    assert len(list(out.glob("study-*.yaml"))) == 1


def test_a_failed_run_is_reported_and_the_others_go_on(study, capsys):
    path = study(SEEDS.replace("seed: [0, 1]", "lr: [1.0e+30, 0.1]"))
    states = []
    result = make(path, watcher=states.append)
    ((folder, text),) = result.failed.items()
    assert "the loss became" in text
    record = read_run(folder)
    assert record.status == "failed"
    assert record.error.startswith("Diverged: the loss became")
    assert "Traceback" in record.error
    assert len(result.made) == 1
    assert read_run(result.made[0]).status == "finished"
    assert (states[-1].done, states[-1].failed) == (1, 1)
    assert any(state.event and state.event.startswith("failed: ResNet-8 · lr 1e+30: ") for state in states)
    # Through the command, with a process: tried again, and told by the exit code.
    assert main(["sweep", str(path), "--jobs", "1", "--json"]) == 1
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["failed"]) == [str(folder)]
    assert "1 run; the same command tries them again" in captured.err


def test_a_run_that_fails_before_it_begins_is_one_of_the_study(study, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("robustmaps.studies._sweep.train", fail)
    path = study()
    assert len(make(path).failed) == 2
    records = read_runs(path.with_suffix(""))
    assert [(record.status, record.config.training.seed) for record in records] == [("failed", 0), ("failed", 1)]
    assert "no space left" in records[0].error


def test_how_images_are_not_upsampled_makes_no_second_run(study):
    text = f"axes: {{upsample: [1, 2], upsample-mode: [nearest, bilinear]}}\nfixed: {FIXED}\nevaluation: {EVALUATION}\n"
    path = study(text)
    plan = plan_sweep(read_study(path), path.with_suffix(""), threads=1)
    assert len(plan.runs) == 3
    assert "1 combination left out: the same run as another" in plan.notes


def test_the_time_left_follows_the_runs_that_are_done(study):
    """Two at once, each as long as was thought: after the first one there is as much left as the second has to go."""
    path = study()
    plan = plan_sweep(read_study(path), path.with_suffix(""), jobs=2, threads=1)
    runs = [
        replace(run, estimate=replace(run.estimate, seconds_per_flop=10 / run.estimate.flops, start_s=0))
        for run in plan.runs
    ]
    states = []
    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustmaps.studies._progress.time.monotonic", lambda: clock[0])
        board = Board(replace(plan, runs=tuple(runs)), states.append)
        for index in (0, 1):
            board.watch(index, Progress("epoch 1/1", 0, 1, "steps"))
        clock[0] = 8.0
        board.finished(0, TaskOutcome({"robust_accuracy": 0.5}))
    assert states[-1].remaining_s == pytest.approx(0.0, abs=1e-6)  # it took 8 of 10 seconds, so 8 for the other, too


def test_a_stop_is_gone_on_from(study, tmp_path):
    path = study()
    with pytest.raises(Interrupted, match="stopped with 0 of 2 runs done"):
        make(path, should_stop=lambda: True)
    assert {record.status for record in read_runs(path.with_suffix(""))} == {"stopped"}
    assert len(make(path).made) == 2
    whole = plan_sweep(read_study(path), tmp_path / "whole", threads=1)
    sweep(whole, executor=Here())
    assert_same(read_runs(path.with_suffix("")), read_runs(whole.out))


def test_a_dry_run_writes_nothing(study, tmp_path, capsys):
    path = study(SEEDS + "exclude: [{seed: 1}]\n")
    assert main(["sweep", str(path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 of 1 runs to make" in out
    assert "FLOP" in out
    assert "1 combination excluded" in out
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: [0, 1]", "strides: [122, 1222]"), "strides: 1222: .*expected 3 digits.*fix or exclude it"),
        (("attack: fgsm", "attack: fgms"), "did you mean 'fgsm'"),
        (("data: digits", "data: nowhere"), "nowhere"),
    ],
)
def test_what_can_not_run_is_refused_before_anything_is(study, change, message):
    path = study(SEEDS.replace(*change))
    with pytest.raises(InputError, match=message):
        make(path)
    assert not path.with_suffix("").exists()


def test_two_sweeps_do_not_share_a_folder(study):
    path = study()
    path.with_suffix("").mkdir()
    with (
        FileLock(path.with_suffix("") / ".sweep.lock"),
        pytest.raises(InputError, match="another process is running a sweep there"),
    ):
        make(path)


@pytest.mark.slow
def test_a_sweep_killed_twice_ends_as_an_uninterrupted_one(study, tmp_path):
    path = study(SEEDS.replace("epochs: 1", "epochs: 4").replace("attack: fgsm", "attack: pgd, steps: 9, restarts: 2"))
    command = [sys.executable, "-m", "robustmaps", "sweep", str(path), "--jobs", "1", "--threads", "1"]
    killed = tmp_path / "killed"
    for awaited in ("*/metrics.jsonl", "*/evaluation"):
        process = subprocess.Popen([*command, "--out", killed], stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 100
        while not list(killed.glob(awaited)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    plans = [plan_sweep(read_study(path), out, threads=1) for out in (killed, tmp_path / "whole")]
    assert len(plans[0].missing) > 0
    for plan in plans:
        sweep(plan, executor=Here())
    assert_same(*(read_runs(plan.out) for plan in plans))


def test_a_damaged_run_is_reported_and_left_alone_and_the_others_are_made(study, capsys, monkeypatch):
    monkeypatch.setattr("robustmaps.studies._sweep.LocalExecutor", lambda *_: Here())
    monkeypatch.setattr("robustmaps.studies._plan.measure_all", lambda estimates, *_, **__: estimates)
    path = study(SEEDS.replace("epochs: 1", "epochs: 1, train-samples: 256"))
    out = path.with_suffix("")
    runs = {run.point.config.training.seed: run.folder for run in plan_sweep(read_study(path), out).runs}
    config = runs[0] / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(BOMB)
    assert main(["sweep", str(path), "--json"]) == 1
    said = capsys.readouterr()
    assert f"1 run; the same command tries them again:\n  {runs[0]}: InputError: {config}: not valid YAML" in said.err
    found = json.loads(said.out)
    assert list(found["failed"]) == [str(runs[0])]
    assert found["made"] == [str(runs[1])]
    assert [one["seeds"] for one in found["statistics"][0]["configurations"]] == [[1]]
    assert config.read_text() == BOMB

    shutil.rmtree(runs[0])
    runs[0].write_text("not a folder")
    (evaluation,) = runs[1].glob("evaluation/fgsm*[0-9a-f].json")
    evaluation.write_bytes(evaluation.read_bytes()[:-50])
    assert main(["sweep", str(path)]) == 1
    said = capsys.readouterr().err
    assert "2 runs; " in said
    assert f"{runs[0]} already exists and is not a folder" in said
    assert f"{evaluation}: not JSON" in said
    assert runs[0].read_text() == "not a folder"


def test_a_study_has_columns_and_consistent_accuracy(study, tmp_path):
    path = study(
        "axes: {seed: [0]}\nfixed: {epochs: 1, eps: 0.1, steps: 1, device: cpu, precision: fp32, batch-size: 512}\n"
        "evaluation: {attack: 'fgsm,pgd-20', each: true, consistent: true, split: train, samples: 20}\n"
    )
    assert make(path).failed == {}
    plan = plan_sweep(read_study(path), path.with_suffix(""), threads=1)
    assert not plan.missing
    record = read_run(plan.runs[0].folder)
    assert len(record.evaluations) == 3
    assert all(e.misclassified is not None and e.split == "train" for e in record.evaluations.values())
    again = reproduce(record.folder, tmp_path / "again")
    assert len(again.evaluations) == 3
    assert all(each.again is not None and not each.different for each in again.evaluations)
    kept = [each.again.misclassified.verdicts for each in again.evaluations if each.again is not None]
    assert kept == [each.recorded.misclassified.verdicts for each in again.evaluations]


def test_a_study_with_one_attack_has_no_columns(study):
    path = study("axes: {seed: [0]}\nevaluation: {attack: pgd, each: true}\n")
    with pytest.raises(InputError, match=r"study\.yaml: evaluation: attack=pgd with each: expected two or more"):
        read_study(path)


def test_a_column_per_attack_beside_the_worst_case(study, monkeypatch, capsys):
    monkeypatch.setattr("robustmaps.studies._sweep.LocalExecutor", lambda *_: Here())
    path = study(SEEDS.replace("[0, 1]", "[0]").replace(EVALUATION, "{attack: 'fgsm,pgd-20', samples: 20, each: true}"))
    assert main(["sweep", str(path)]) == 0
    out = capsys.readouterr().out
    (head,) = [line for line in out.splitlines() if "configuration" in line]
    assert [part.strip() for part in head.split("[95 %]")][1:4] == ["FGSM", "PGD-20", "worst case"]
    assert "worst case of FGSM + PGD-20" in out
    (record,) = read_runs(path.with_suffix(""))
    found = statistics_of([record])
    assert found.yardstick.alone
    assert {stick.label for stick in found.columns} == {"fgsm", "pgd-20", "worst case of fgsm + pgd-20"}


def test_a_dry_run_downloads_nothing(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTMAPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("robustmaps.data.sources.hub.Hub.read", lambda *_: pytest.fail("a download"))
    monkeypatch.setattr("robustmaps.studies._plan.measure_all", _timed)
    monkeypatch.setattr("robustmaps.studies._plan.time_process_start", lambda: 7.0)
    path = study("axes: {data: [mnist, 'hf:some/one']}\nfixed: {epochs: 1, defense: standard, validation: 0}\n")
    plan = plan_sweep(read_study(path), path.with_suffix(""), dry=True)
    by_data = {run.point.values["data"]: run.estimate for run in plan.runs}
    assert by_data["mnist"].training_flops == pytest.approx(3 * 60_000 * by_data["mnist"].image_flops, rel=0.02)
    assert by_data["hf:some/one"].flops == 0
    assert by_data["mnist"].seconds == pytest.approx(100 + 3)
    assert plan.seconds is None
    known = replace(plan, runs=tuple(run for run in plan.runs if run.estimate.flops))
    assert known.seconds == pytest.approx(100 + 3 + 7)
    assert [note for note in plan.notes if "hf:some/one: not downloaded" in note and "1 run not counted" in note]
    assert [note for note in plan.notes if "mnist is not downloaded yet" in note]
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert not (tmp_path / "cache").exists()


def _timed(estimates, *_, **__):
    """As if each run took 100 seconds, and three to start."""
    return {run: replace(one, seconds_per_flop=100 / one.flops, start_s=3) for run, one in estimates.items()}


def test_warnings_of_a_process_reach_the_watcher_once(study):
    (outcome,) = LocalExecutor(1, 1).run(
        [Warns()], watcher=lambda *_: None, finished=lambda *_: None, should_stop=lambda: False
    )
    assert outcome == TaskOutcome(1, warnings=("look out",))
    path = study()
    plan, heard = plan_sweep(read_study(path), path.with_suffix(""), threads=1), []
    Board(plan, heard.append).finished(0, TaskOutcome({}, warnings=("look out",)))
    assert heard[-1].warnings == (f"{plan.missing[0].title}: look out",)


@dataclass(frozen=True)
class Warns:
    """A task that warns twice."""

    def __call__(self, worker):
        for _ in range(2):
            warnings.warn("look out", stacklevel=1)
        return 1


@pytest.mark.filterwarnings("ignore::robustmaps.enlarging.EnlargeWarning")
def test_enlargements_that_give_one_network_are_named(study, capsys):
    axes = "axes: {n: [{strides: 122}, {strides: 112}, {enlarge: '0'}, {upsample: 2}], seed: [0, 1]}\n"
    plan = plan_sweep(read_study(study(f"{axes}fixed: {FIXED}\n")), study().with_suffix(""), threads=1)
    assert [note for note in plan.notes if "network" in note] == [
        "resnet8: strides 112 and strides 122, enlarge where=0 give the same network; one of them is enough"
    ]
    assert main(["sweep", str(study(f"{axes}fixed: {FIXED}\n")), "--dry-run"]) == 0
    assert "give the same network" in capsys.readouterr().out


def test_finished_runs_tell_the_time_of_the_others_where_nothing_was_timed(study):
    """As for runs on other machines."""
    path = study()
    plan, heard = plan_sweep(read_study(path), path.with_suffix(""), jobs=1, threads=1, timed=False), []
    assert plan.seconds is None
    board = Board(plan, heard.append)
    board.watch(0, Progress("epoch 1/1", 0, 1, "images"))
    assert heard[-1].remaining_s is None
    began = time.monotonic()
    time.sleep(0.2)
    board.finished(0, TaskOutcome({}))
    # The other run has as many operations; a machine may be busy before the first line of the test is reached.
    assert 0.2 <= heard[-1].remaining_s <= 2 * (time.monotonic() - began) + 1
    board.noted(1, "lost; continues")
    assert heard[-1].event == f"{plan.missing[1].title}: lost; continues"
    board.finished(1, TaskOutcome({}))
    assert heard[-1].remaining_s == 0

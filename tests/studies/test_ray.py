"""Studies on a Ray cluster of several nodes, which are lost on the way: the same results as without."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from robustmaps.config import AttackConfig, DefenseConfig, EvaluationConfig, RunConfig, read_study
from robustmaps.engine.errors import InputError
from robustmaps.networks import allow_code
from robustmaps.runs import read_runs
from robustmaps.studies import RayExecutor, find_candidates, plan_sweep, search, statistics_of, sweep
from robustmaps.training import TrainOptions
from tests.helpers.clusters import head_node, process_on, until, with_two_nodes
from tests.helpers.studies import Here, assert_same

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STUDY = """axes: {seed: [0, 1, 2]}
fixed: {data: digits, batch-size: 128, defense: at, eps: 0.1, steps: 2, epochs: 10, device: cpu, precision: fp32}
evaluation: {attack: pgd-20, samples: 40}
"""


@pytest.fixture(scope="module")
def head():
    with head_node() as made:
        yield made


@pytest.fixture
def cluster(head):
    return with_two_nodes(head)


@pytest.fixture
def study(tmp_path):
    def write(text=STUDY):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def planned(path, out):
    return plan_sweep(read_study(path), out, jobs=2, threads=1, timed=False)


def events_of(plan, executor, **kwargs):
    events = []
    result = sweep(plan, executor=executor, watcher=lambda state: state.event and events.append(state.event), **kwargs)
    assert result.failed == {}
    return events


@pytest.fixture
def unseen(tmp_path):
    """A folder that no other process sees."""
    folder = tmp_path / "own"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    os.dup2(handle, 211)
    yield Path("/proc/self/fd/211")
    os.close(handle)
    os.close(211)


def worker_of(node):
    """The process that makes an attempt on a node."""
    return process_on(node, "_attempt")


@pytest.mark.parametrize(("what", "seen"), [("node", True), ("node", False), ("process", False)])
def test_a_loss_changes_no_result(cluster, study, tmp_path, unseen, what, seen):
    path = study()
    whole = planned(path, tmp_path / "whole")
    sweep(whole, executor=Here())
    plan = planned(path, (tmp_path if seen else unseen) / "lost")

    def lose() -> None:
        if until(lambda: len(list(plan.out.glob("*/metrics.jsonl"))) >= 2):
            node = next(node for node in cluster.worker_nodes if worker_of(node) is not None)
            if what == "process":
                os.kill(worker_of(node), signal.SIGKILL)
            else:
                cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    events = events_of(plan, RayExecutor(cluster.address))
    thread.join()
    assert [event for event in events if "continues from its last checkpoint" in event]
    assert [event for event in events if ("sees" if seen else "does not see") in event]
    records = [read_runs(folder) for folder in (plan.out, whole.out)]
    assert_same(*records)
    assert table(records[0]) == table(records[1])
    assert not list(plan.out.glob(".*"))
    assert not list(plan.out.glob("*/evaluation/*/state.json"))


def table(records):
    return [(one.name, one.clean, one.robust, one.deviations) for one in statistics_of(records).compared]


def test_a_network_of_one_s_own_is_sent_with_what_it_imports(cluster, study, tmp_path, monkeypatch):
    path = study(STUDY.replace("{data", "{model: 'own_network:make', data").replace("[0, 1, 2]", "[0]"))
    library = tmp_path / "library"
    library.mkdir()
    (library / "own_blocks.py").write_text("from torch import nn\nPARTS = [nn.Flatten(), nn.Linear(64, 10)]\n")
    (library / "own_network.py").write_text(
        "import warnings, own_blocks\nfrom torch import nn\n"
        "def make():\n"
        "    warnings.warn(f'from {__file__} and {own_blocks.__file__}')\n"
        "    return nn.Sequential(*own_blocks.PARTS)\n"
    )
    monkeypatch.syspath_prepend(library)
    heard = []
    with allow_code("own_network:make"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = planned(path, tmp_path / "own")
        result = sweep(plan, executor=RayExecutor(cluster.address), watcher=lambda state: heard.extend(state.warnings))
    assert result.failed == {}
    (places,) = {text for text in heard if "own_network.py" in text}
    assert str(library) not in places
    assert "py_modules" in places


def test_data_that_a_machine_does_not_see_is_an_error_with_its_name(cluster, study, tmp_path, unseen):
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "own" / "images.npz",
        **{f"x_{part}": draw.integers(0, 256, (100, 8, 8), np.uint8) for part in ("train", "test")},
        **{f"y_{part}": np.arange(100) % 10 for part in ("train", "test")},
    )
    path = study(STUDY.replace("data: digits", f"data: {unseen / 'images.npz'}").replace("[0, 1, 2]", "[0]"))
    result = sweep(planned(path, tmp_path / "runs"), executor=RayExecutor(cluster.address))
    (text,) = result.failed.values()
    assert "images.npz" in text
    assert f"(on {platform.node()})" in text


def test_ctrl_c_saves_all_runs_and_the_same_command_continues(cluster, study, tmp_path):
    path = study(STUDY.replace("epochs: 10", "epochs: 25").replace("[0, 1, 2]", "[0, 1]"))
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "robustmaps", "sweep", str(path), "--out", str(out), "--json"]
    options = ["--executor", "ray", "--address", cluster.address]
    first = subprocess.Popen([*command, *options], start_new_session=True, stderr=subprocess.PIPE, text=True)
    assert until(lambda: len(list(out.glob("*/metrics.jsonl"))) == 2 or first.poll() is not None)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does, to Ray's processes too
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 1, said
    assert "stopped with 0 of 2 runs done; the same command continues from here" in said
    assert all(0 < len(record.history) < 25 for record in read_runs(out))
    again = subprocess.run([*command, *options], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["failed"] == {}  # and nothing else is on standard output
    whole = planned(path, tmp_path / "whole")
    sweep(whole, executor=Here())
    assert_same(read_runs(out), read_runs(whole.out))


def test_a_search_decides_the_same_on_a_cluster(cluster, digits, tmp_path):
    training = TrainOptions(epochs=2, batch_size=256, device="cpu", precision="fp32", schedule="constant", lr=0.02)
    base = RunConfig(defense=DefenseConfig(defense="standard"), training=training)
    candidates = find_candidates(base, digits, budget=3)
    wanted = EvaluationConfig(AttackConfig("fgsm"), samples=40)
    found = []
    for name, executor in (("here", Here()), ("ray", RayExecutor(cluster.address))):
        result = search(candidates, tmp_path / name, evaluation=wanted, reduction=2, executor=executor)
        found.append([(t.candidate, t.score, t.epochs, t.kept, t.best, t.robust, t.error) for t in result.trials])
    assert found[0] == found[1]
    assert {kept for _, _, _, kept, *_ in found[0]} == {True, False}


def test_a_cluster_of_this_machine_alone_is_started_and_ended(study, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    executor = RayExecutor()
    assert executor.is_here
    handler = signal.getsignal(signal.SIGTERM)
    plan = planned(study(STUDY.replace("epochs: 10", "epochs: 1")), tmp_path / "here")
    assert sweep(plan, executor=executor).failed == {}
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_run_that_no_node_has_room_for_is_refused_at_once(cluster):
    for options in ({"cpus_per_run": 2}, {"gpus_per_run": 1}):
        with pytest.raises(InputError, match="give at most"):
            RayExecutor(cluster.address, **options).runs_at_once()
    assert RayExecutor(cluster.address).runs_at_once() == 2
    assert RayExecutor(cluster.address, jobs=1).runs_at_once() == 1

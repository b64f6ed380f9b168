"""Studies on a Ray cluster of several nodes, which are lost on the way: the same results as without."""

import os
import threading
import time
from pathlib import Path

import pytest

from robustmaps.config import read_study
from robustmaps.runs import read_runs
from robustmaps.studies import RayExecutor, plan_sweep, statistics_of, sweep
from tests.helpers.studies import Here, assert_same

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STUDY = """axes: {seed: [0, 1, 2]}
fixed: {data: digits, batch-size: 128, defense: at, eps: 0.1, steps: 2, epochs: 10, device: cpu, precision: fp32}
evaluation: {attack: pgd-20, samples: 40}
"""
SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture
def cluster():
    """A head without cores, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    made.workers = [made.add_node(num_cpus=1, **SMALL) for _ in range(2)]
    made.wait_for_nodes()
    yield made
    made.shutdown()


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


@pytest.mark.parametrize("seen", [True, False])
def test_a_lost_node_changes_no_result(cluster, study, tmp_path, unseen, seen):
    path = study()
    whole = planned(path, tmp_path / "whole")
    sweep(whole, executor=Here())
    plan = planned(path, (tmp_path if seen else unseen) / "lost")

    def lose() -> None:
        deadline = time.monotonic() + 120
        while len(list(plan.out.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    events = events_of(plan, RayExecutor(cluster.address))
    thread.join()
    print(*events, sep="\n")
    lost = [event for event in events if "lost (" in event]
    assert lost
    assert [event for event in events if ("sees" if seen else "does not see") in event]
    records = [read_runs(folder) for folder in (plan.out, whole.out)]
    assert_same(*records)
    assert repr(statistics_of(records[0])) == repr(statistics_of(records[1]))
    assert not list(plan.out.glob(".probe*"))

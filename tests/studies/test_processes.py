"""Tasks in processes: failures and deaths stay with the task that had them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from robustmaps.engine.errors import Interrupted
from robustmaps.engine.progress import Progress
from robustmaps.studies._processes import LocalExecutor, WorkerDied


@dataclass(frozen=True)
class Behave:
    how: str

    def __call__(self, worker):
        worker.watch(Progress("phase", 1, 2, "steps"))
        if self.how == "raise":
            raise ValueError("no")
        if self.how == "die":
            time.sleep(0.5)  # reports are sent by a thread of their own
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how.startswith("busy in "):
            Path(self.how.removeprefix("busy in ")).write_text(str(os.getpid()))
            sum(range(10**9))  # holds the interpreter for many seconds
        if self.how == "wait":
            while not worker.should_stop():
                time.sleep(0.01)
            raise Interrupted("asked")
        return os.getpid() if self.how == "process" else self.how


def run(hows, jobs=1, should_stop=lambda: False):
    seen, ended = set(), []
    outcomes = LocalExecutor(jobs, threads=1).run(
        [Behave(how) for how in hows],
        watcher=lambda index, progress: seen.add(index),
        finished=lambda index, outcome: ended.append(index),
        should_stop=should_stop,
    )
    return outcomes, seen, ended


def test_one_failure_and_one_death_leave_the_others_alone():
    outcomes, seen, ended = run(["a", "raise", "die", "b"])
    assert [outcome.value for outcome in outcomes] == ["a", None, None, "b"]
    assert isinstance(outcomes[1].error, ValueError)
    assert isinstance(outcomes[2].error, WorkerDied)
    assert sorted(ended) == [0, 1, 2, 3]
    assert {0, 1} <= seen  # a report of the last task may come after its end


def test_a_stop_reaches_running_tasks_and_begins_no_other():
    began = time.monotonic()
    outcomes, _, ended = run(["wait", "a"], should_stop=lambda: time.monotonic() > began + 1)
    assert [type(outcome.error) for outcome in outcomes] == [Interrupted, Interrupted]
    assert ended == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_worker_ends_with_its_parent_even_while_it_computes(tmp_path):
    """Otherwise it would hold the lock of its run when the killed sweep is started again."""
    told = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-m", "tests.studies.test_processes", f"busy in {told}"])
    while not told.exists() or not told.read_text():
        assert parent.poll() is None
        time.sleep(0.05)
    worker = int(told.read_text())
    parent.kill()
    parent.wait()
    for _ in range(40):
        time.sleep(0.05)
        if not _is_running(worker):
            return
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker has outlived its parent")


def _is_running(process):
    """Whether a process computes; one that has ended may wait for somebody to notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr("robustmaps.studies._processes.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [LocalExecutor(jobs).threads_each for jobs in (1, 3, 8, 20)] == [8, 2, 1, 1]
    assert LocalExecutor(2, threads=3).threads_each == 3
    for limit, expected in (("2", [2, 2, 1, 1]), ("16", [8, 2, 1, 1]), ("3,1", [3, 2, 1, 1]), ("", [8, 2, 1, 1])):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert [LocalExecutor(jobs).threads_each for jobs in (1, 3, 8, 20)] == expected
    assert LocalExecutor(1, threads=4).threads_each == 4


if __name__ == "__main__":
    run(sys.argv[1:])


def test_processes_that_are_kept_do_the_tasks_of_the_next_call():
    processes, seen = [], set()
    with LocalExecutor(1, threads=1).kept() as executor:
        for hows in (["process", "process", "raise"], ["process"]):
            outcomes = executor.run(
                [Behave(how) for how in hows],
                watcher=lambda index, _: seen.add(index),
                finished=lambda *_: None,
                should_stop=lambda: False,
            )
            processes += [outcome.value for outcome in outcomes if outcome.error is None]
            late = seen & {1, 2, 3} if len(hows) == 1 else set()
            assert not late, "reports of the call before"
            seen.clear()
    assert len(processes) == 3
    assert len(set(processes)) == 1


def test_a_process_that_is_killed_between_two_calls_is_replaced():
    options = {"watcher": lambda *_: None, "finished": lambda *_: None, "should_stop": lambda: False}
    with LocalExecutor(1, threads=1).kept() as executor:
        (first,) = executor.run([Behave("process")], **options)
        os.kill(first.value, signal.SIGKILL)
        while _is_running(first.value):
            time.sleep(0.05)
        time.sleep(0.5)  # until the pool knows
        (second,) = executor.run([Behave("process")], **options)
    assert second.error is None
    assert second.value != first.value

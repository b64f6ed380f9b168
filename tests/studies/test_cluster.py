"""The protocol of a cluster without one: what is lost is made again, and what can't be seen comes back."""

import os
import pickle
import queue
import socket
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmaps.cli import main
from robustmaps.engine.cluster import connection
from robustmaps.engine.cluster.connection import check_address, own_modules, runs_at_once
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.files import append_line
from robustmaps.engine.progress import Progress
from robustmaps.engine.writing.outputs import alone, claim_folder
from robustmaps.studies import RayExecutor
from robustmaps.studies._cluster import _course, _worker
from robustmaps.studies._cluster._files import Changes, Watched
from robustmaps.studies._cluster._mailbox import Lost, Mailbox
from robustmaps.studies._cluster._worker import Ended, work
from robustmaps.studies._processes import TaskOutcome, WorkerDied

STEPS = 4


class Killed(BaseException):
    """As the end of a process: nothing after it is done."""


@dataclass(frozen=True)
class Count:
    """Counts to four in its folder, and goes on from where the count is."""

    out: Path
    name: str
    how: str = "count"
    runs_code = False
    done = []  # noqa: RUF012 - all steps that were ever made

    @property
    def folder(self):
        return self.out / self.name

    def claim(self):
        claim_folder(self.folder, lambda path: (path / "count").exists(), "a count")

    def below(self, out):
        return replace(self, out=out)

    def __call__(self, worker):
        if self.how == "raise":
            raise InputError("no")
        if self.how == "odd":
            raise type("Odd", (Exception,), {})("of no module")
        with alone(self.folder / ".lock", "counting"):
            return self._count(worker)

    def _count(self, worker):
        count = self.folder / "count"
        at = len(count.read_text().split()) if count.exists() else 0
        while at < STEPS:
            append_line(count, str(at))
            (self.folder / f"step{at}").write_text("")
            (self.folder / f"step{at - 1}").unlink(missing_ok=True)
            self.done.append((self.name, at))
            at += 1
            worker.watch(Progress("counting", at, STEPS, "steps"))
            if at == 2 and self.done.count((self.name, 1)) <= (self.how == "killed") + 9 * (self.how == "dies"):
                raise Killed
            while self.how == "wait" and not worker.should_stop():
                pass
            if worker.should_stop():
                raise Interrupted("asked")
        return at


class Threads:
    """Attempts in threads of this process; the machines see no folder if ``blind``."""

    def __init__(self, blind=False):
        self.blind, self.mailbox, self.over, self.jobs = blind, Mailbox(), queue.Queue(), []

    def submit(self, job):
        job = pickle.loads(pickle.dumps(job))
        self.jobs.append(job)
        blind = self.blind(len(self.jobs)) if callable(self.blind) else self.blind
        if blind and job.probe is not None:
            job = replace(job, probe=job.probe / "elsewhere")
        threading.Thread(target=self._run, args=(job,)).start()

    def _run(self, job):
        try:
            end = work(job, self.mailbox)
        except Killed:
            end = Lost("killed")
        self.over.put(((job.index, job.attempt), end))

    def room(self):
        return 1

    def take(self, stop):
        return self.mailbox.take(stop)

    def cancel(self, attempts):
        self.cancelled = set(attempts)

    def ended(self, timeout_s):
        try:
            return dict([self.over.get(timeout=timeout_s)])
        except queue.Empty:
            return {}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(Count, "done", [])
    monkeypatch.setattr(_worker, "_SEND_S", 0.0)
    monkeypatch.setattr(_worker, "_TELL_S", 0.01)

    def call(*hows, pool, should_stop=lambda: False, retries=3):
        out = tmp_path / "study"
        notes, seen, ended = [], set(), []
        outcomes = RayExecutor("local", jobs=1, threads=torch.get_num_threads(), retries=retries).run_in(
            pool,
            [Count(out, f"{number}-{how}", how) for number, how in enumerate(hows)],
            lambda index, progress: seen.add((index, progress.done)),
            lambda index, outcome: ended.append(index),
            should_stop,
            lambda index, text: notes.append((index, text)),
        )
        assert not list(out.glob(".*"))  # the probe
        return outcomes, notes, ended

    return call


def contents(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("blind", [False, True])
def test_results_are_in_the_same_folders_whether_or_not_they_are_seen(run, tmp_path, blind):
    pool = Threads(blind)
    outcomes, notes, ended = run("count", "count", pool=pool)
    assert [outcome.value for outcome in outcomes] == [STEPS, STEPS]
    assert ended == [0, 1]
    for name in ("0-count", "1-count"):
        assert (tmp_path / "study" / name / "count").read_text().split() == ["0", "1", "2", "3"]
        assert contents(tmp_path / "study" / name) == {"count", "step3"}  # removed there, removed here
    ((_, text),) = notes  # once for a machine
    assert ("does not see" in text) == blind
    assert len(pool.jobs) == 2 + 2 * blind  # first without the files, which may not be needed


@pytest.mark.parametrize("blind", [False, True, lambda number: number < 3, lambda number: number > 1])
def test_a_lost_task_goes_on_from_where_it_was(run, tmp_path, blind):
    outcomes, notes, _ = run("killed", pool=Threads(blind))
    assert outcomes[0].value == STEPS
    assert Count.done == [("0-killed", step) for step in range(STEPS)]
    assert contents(tmp_path / "study" / "0-killed") == {"count", "step3"}
    assert (0, "lost (killed); continues from its last checkpoint") in notes


def test_what_was_not_sent_yet_is_made_again(run, monkeypatch):
    monkeypatch.setattr(_worker, "_SEND_S", 1e9)
    outcomes, _, _ = run("killed", pool=Threads(blind=True))
    assert outcomes[0].value == STEPS
    assert [step for _, step in Count.done] == [0, 1, 0, 1, 2, 3]


def test_a_task_that_is_always_lost_fails_and_the_others_are_made(run, monkeypatch):
    monkeypatch.setattr(_worker, "_SEND_S", 1e9)
    outcomes, _, _ = run("dies", "count", pool=Threads(blind=True), retries=2)
    assert isinstance(outcomes[0].error, WorkerDied)
    assert "lost 3 times, at last: killed" in str(outcomes[0].error)
    assert outcomes[1].value == STEPS


@pytest.mark.parametrize("blind", [False, True])
def test_a_stop_ends_what_runs_and_starts_no_more(run, tmp_path, blind):
    pool = Threads(blind)
    asked = threading.Timer(0.5, lambda: None)
    asked.start()
    outcomes, _, ended = run("wait", "count", pool=pool, should_stop=lambda: not asked.is_alive())
    assert [type(outcome.error) for outcome in outcomes] == [Interrupted, Interrupted]
    assert ended == [0]
    assert (tmp_path / "study" / "0-wait" / "count").read_text() == "0\n"  # what was saved last is here
    again, _, _ = run("count", pool=Threads(blind))
    assert again[0].value == STEPS


@pytest.mark.parametrize("blind", [False, True])
def test_errors_stay_with_their_task_and_name_the_machine(run, tmp_path, blind):
    (tmp_path / "study" / "2-count").mkdir(parents=True)
    (tmp_path / "study" / "2-count" / "mine.txt").write_text("mine")
    outcomes, _, _ = run("raise", "odd", "count", "count", pool=Threads(blind))
    errors = [outcome.error for outcome in outcomes]
    assert isinstance(errors[0], InputError)
    assert str(errors[0]).startswith("no (on ")
    assert str(errors[1]).startswith("Odd: of no module (on ")
    assert f"{tmp_path / 'study' / '2-count'}: exists and is not a count" in str(errors[2])
    assert contents(tmp_path / "study" / "2-count") == {"mine.txt"}
    assert outcomes[3].value == STEPS


def test_a_second_attempt_waits_for_the_end_of_the_first(run, tmp_path):
    """A process outlives the connection of its machine for a moment, with its lock."""
    held, pool = FileLock(tmp_path / "study" / "0-killed" / ".lock", thread_local=False), Threads()
    submit = pool.submit

    def hold(job):
        if job.attempt == 2:
            held.acquire()
            threading.Timer(1.0, held.release).start()
        submit(job)

    pool.submit = hold
    outcomes, _, _ = run("killed", pool=pool)
    assert outcomes[0].value == STEPS


def test_a_first_attempt_does_not_wait_for_another_process(run, tmp_path):
    (tmp_path / "study" / "0-count").mkdir(parents=True)
    with FileLock(tmp_path / "study" / "0-count" / ".lock"):
        outcomes, _, _ = run("count", pool=Threads())
    assert "another process is counting" in str(outcomes[0].error)


NAMES = st.sampled_from(["a", "b", "c/d"])
STATES = st.lists(st.dictionaries(NAMES, st.binary(max_size=3)), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(states=STATES)
def test_changes_in_one_are_changes_one_after_the_other(states, tmp_path_factory):
    """Every state of a folder arrives, whether all changes do or the last two as one."""
    there, here, joined = (tmp_path_factory.mktemp(name) for name in ("there", "here", "joined"))
    watched, all_changes, known = Watched(there), [], frozenset()
    for state in states:
        for path in [path for path in there.rglob("*") if path.is_file()]:
            path.unlink()
        for name, data in state.items():
            (there / name).parent.mkdir(exist_ok=True)
            (there / name).write_bytes(data)
        changes = watched.changes()
        if changes is not None:
            changes.apply(here, known)
            known = changes.names
            all_changes.append(changes)
        assert watched.changes() is None
        assert files_of(here) == state
    if all_changes:
        one = all_changes[0]
        for changes in all_changes[1:]:
            one = one.then(changes)
        one.apply(joined, ())
        assert files_of(joined) == states[-1]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x"])
def test_no_file_leaves_its_folder(name, tmp_path):
    with pytest.raises(InputError, match="expected a path inside"):
        Changes({name: b""}, frozenset({name})).apply(tmp_path / "run", ())
    with pytest.raises(InputError, match="expected a path inside"):
        Changes().apply(tmp_path / "run", {name})
    assert not list(tmp_path.iterdir())


def test_locks_and_temporary_files_are_not_sent(tmp_path):
    for name in (".lock", ".last.pt.x.robustmaps.tmp", "last.pt"):
        (tmp_path / name).write_text("")
    assert Watched(tmp_path).changes().names == {"last.pt"}


def test_a_task_without_room_says_that_it_waits(run, monkeypatch):
    """Such as after the loss of all machines but that of the head."""
    monkeypatch.setattr(_course, "_ROOM_S", 0.0)

    class Full(Threads):
        stopped = False

        def submit(self, job):
            self.job = job

        def room(self):
            return 0

        def cancel(self, attempts):
            self.stopped = True
            self.over.put((*attempts, Ended("", True, TaskOutcome(error=Interrupted("cancelled")))))

    pool = Full()
    asked = threading.Timer(0.5, lambda: None)
    asked.start()
    outcomes, notes, _ = run("count", pool=pool, should_stop=lambda: not asked.is_alive())
    assert isinstance(outcomes[0].error, Interrupted)
    ((_, text),) = notes  # once
    assert "no machine that is left has room" in text


@pytest.fixture
def answering():
    """A server that answers the first bytes that it gets."""
    servers = []

    def serve(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def reply():
            line, _ = server.accept()
            with line:
                if answer is None:
                    line.recv(1)  # and never says anything
                    line.settimeout(5)
                    while line.recv(1000):
                        pass
                line.recv(1000)
                line.sendall(answer or b"")

        threading.Thread(target=reply, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_is_known_within_seconds(answering, monkeypatch, prefix):
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    check_address(prefix + answering(settings))
    with pytest.raises(InputError, match="what answers there is not Ray"):
        check_address(prefix + answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(InputError, match="what answers there is not Ray"):
        check_address(prefix + answering(b""))
    monkeypatch.setattr(connection, "_ANSWER_S", 0.2)
    with pytest.raises(InputError, match=r"no answer within 0\.2 s"):
        check_address(prefix + answering(None))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(InputError, match=f"address={prefix}127.0.0.1:{port}: no cluster there"):
        check_address(f"{prefix}127.0.0.1:{port}")


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:port", "head:0", "head:65536", "http://head:1/x"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match=r"expected HOST:PORT"):
        check_address(address)


def nodes(*resources, alive=True):
    return SimpleNamespace(nodes=lambda: [{"Alive": alive, "Resources": each} for each in resources])


def test_room_is_counted_machine_by_machine():
    ray = nodes({"CPU": 8, "GPU": 2}, {"CPU": 5}, {})
    assert runs_at_once(ray, 2, 0) == (4 + 2, 0)
    assert runs_at_once(ray, 2, None) == (2, 1)  # one GPU each, where there are any
    assert runs_at_once(ray, 1, 0.5) == (4, 0.5)
    assert runs_at_once(nodes({"CPU": 5}), 2, None) == (2, 0)


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "message"),
    [
        ([{"CPU": 4}, {"CPU": 4}], 5, 0, r"cpus_per_run=5: .* largest of the cluster's 2 nodes has 4 CPUs; .* most 4"),
        ([{"CPU": 4, "GPU": 1}], 1, 2, r"gpus_per_run=2: .* largest of the cluster's 1 node has 1 GPU; .* most 1"),
        ([{"CPU": 4}, {"CPU": 1, "GPU": 8}], 4, 1, r"cpus_per_run=4, gpus_per_run=1: no machine .* has both"),
        ([], 1, None, r"0 nodes has 0 CPUs"),
    ],
)
def test_what_no_machine_has_room_for_is_refused(resources, cpus, gpus, message):
    with pytest.raises(InputError, match=message):
        runs_at_once(nodes(*resources), cpus, gpus)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus_per_run": 0}, "cpus_per_run=0: expected a whole number of at least 1"),
        ({"gpus_per_run": -1.0}, "gpus_per_run"),
        ({"gpus_per_run": 1.5}, r"gpus_per_run=1\.5: expected a whole number, or less than 1"),
        ({"gpus_per_run": float("nan")}, "gpus_per_run"),
    ],
)
def test_wrong_shares_are_refused_before_a_connection(options, message):
    with pytest.raises(InputError, match=message):
        RayExecutor("127.0.0.1:1", **options).runs_at_once()


def test_without_ray_the_error_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "study.yaml").write_text("axes: {seed: [0]}\n")
    assert main(["sweep", str(tmp_path / "study.yaml"), "--executor", "ray"]) == 2
    assert "pip install 'robustmaps[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["sweep study.yaml", "advise resnet8", "search resnet8", "evaluate resnet8"])
def test_options_of_a_cluster_need_one(verb, capsys):
    for option in ("--address 127.0.0.1:1", "--gpus-per-run 1", "--cpus-per-run 2"):
        assert main([*verb.split(), *option.split()]) == 2
        assert f"{option.split()[0].removeprefix('--')}: only of use on a Ray cluster" in capsys.readouterr().err


def test_own_modules_are_those_that_are_not_installed(monkeypatch, tmp_path):
    for name in ("own_network_of_test", "own_blocks_of_test"):
        (tmp_path / f"{name}.py").write_text("")
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
    found = own_modules()
    assert {str(tmp_path / f"{name}.py") for name in ("own_network_of_test", "own_blocks_of_test")} <= {*found}
    assert not {"robustmaps", "torch", "os.py", "yaml", "numpy"} & {Path(path).name for path in found}


def test_reports_wait_in_the_mailbox_and_the_latest_counts():
    mailbox = Mailbox()
    first, second = (Progress("phase", done, 2, "steps") for done in (1, 2))
    assert not mailbox.tell(0, 1, True, "node", first)
    assert not mailbox.tell(0, 1, True, "node", second)
    mailbox.keep(0, 1, Changes({"a": b"1", "b": b"1"}, frozenset({"a", "b"})))
    mailbox.keep(0, 1, Changes({"a": b"2"}, frozenset({"a"})))
    news = mailbox.take(True)
    assert news.progress == {(0, 1): second}
    assert news.changes == {(0, 1): Changes({"a": b"2"}, frozenset({"a"}))}
    assert mailbox.take(True).progress == {}
    assert mailbox.tell(0, 1, True, "node", None)  # asked to stop


def test_relative_paths_mean_what_they_do_here(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = Count(Path("study"), "run")
    pool = Threads()
    RayExecutor("local", jobs=1, threads=torch.get_num_threads()).run_in(
        pool, [task], lambda *_: None, lambda *_: None, lambda: False, lambda *_: None
    )
    (job,) = pool.jobs
    assert job.task.folder == tmp_path / "study" / "run"
    assert (job.here, os.getcwd()) == (tmp_path, str(tmp_path))

"""Evaluations on a Ray cluster of several nodes, which are lost on the way: the same verdicts as without."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps import evaluate
from robustmaps.attacks import PGD, AutoAttack
from robustmaps.cli import main
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import Evaluation, RayWorkers
from tests.helpers.clusters import head_node, process_on, until, with_two_nodes

ray = pytest.importorskip("ray")
WORKER = "EvaluationWorker"
ATTACK = AutoAttack(eps=0.12, version=("apgd-ce", "apgd-dlr", "fab-t"))


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    with head_node() as made:
        yield made


@pytest.fixture
def cluster(head: Any) -> Any:
    return with_two_nodes(head)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As workers have it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(digits_test: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits_test[0][:64], digits_test[1][:64]


def timeless(evaluation: Evaluation) -> Evaluation:
    stages = tuple({**stage, "seconds": 0.0} for stage in evaluation.stages)
    return replace(evaluation, seconds=0.0, stages=stages)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["node", "process"])
def test_a_loss_changes_no_verdict(
    cluster: Any, robust_network: nn.Module, images: tuple[Tensor, Tensor], what: str
) -> None:
    alone = evaluate(robust_network, *images, ATTACK, batch_size=8, precision="fp32")
    begun, lost, notes = threading.Event(), list[int](), list[str]()

    def lose() -> None:
        begun.wait(200)
        node = until(lambda: next((node for node in cluster.worker_nodes if process_on(node, WORKER)), None))
        lost.append(process_on(node, WORKER) or 0)
        if what == "process":
            os.kill(lost[0], signal.SIGKILL)
        else:
            cluster.remove_node(node, allow_graceful=False)

    def watch(progress: Progress) -> None:
        if progress.phase == "fab-t" and progress.done > 0:
            begun.set()

    thread = threading.Thread(target=lose)
    thread.start()
    with RayWorkers(cluster.address).started(notes.append) as workers:
        found = evaluate(
            robust_network, *images, ATTACK, batch_size=8, precision="fp32", workers=workers, watcher=watch
        )
        thread.join()
    assert lost[0]
    assert [note for note in notes if "its batch is attacked again elsewhere" in note], notes
    assert timeless(found) == timeless(alone)
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_network_of_no_module_is_sent_with_its_code(cluster: Any, images: tuple[Tensor, Tensor]) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.flatten(1)).sin() * 3  # type: ignore[no-any-return]

    network, attack = Own().eval(), PGD(eps=0.05, steps=5)
    alone = evaluate(network, *images, attack, batch_size=8, precision="fp32")
    with RayWorkers(cluster.address).started() as workers:
        found = evaluate(network, *images, attack, batch_size=8, precision="fp32", workers=workers)
    assert timeless(found) == timeless(alone)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    out = tmp_path_factory.mktemp("runs")
    words = "train resnet8 --data digits --defense at --eps 0.1 --steps 2 --epochs 2 --device cpu --precision fp32"
    assert main([*words.split(), "--out", str(out)]) == 0
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("shared_first", [True, False])
def test_ctrl_c_keeps_what_is_done_and_it_goes_on_with_or_without_ray(
    cluster: Any, run: Path, tmp_path: Path, shared_first: bool
) -> None:
    words = "--attack apgd-ce,apgd-dlr --samples 64 --batch-size 4 --device cpu --precision fp32"
    command = [sys.executable, "-m", "robustmaps", "evaluate", str(run), *words.split(), "--save-adversarials"]
    on_ray, environment = ["--executor", "ray", "--address", cluster.address], {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "stopped.json"

    def done() -> int:
        states = [json.loads(path.read_text()) for path in tmp_path.glob("*/state.json")]
        return sum(stage["done"] for state in states for stage in state["found"]["stages"])

    first = subprocess.Popen(
        [*command, "--out", str(out), *(on_ray if shared_first else [])],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test that runs in the background may ignore it, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert until(lambda: done() > 8 or first.poll() is not None)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does, to Ray's processes too
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 1, said
    assert "stopped; the same command continues after the last finished batch" in said
    before = done()
    assert before > 8
    again = [*command, "--out", str(out), "--json", *([] if shared_first else on_ray)]
    second = subprocess.run(again, capture_output=True, text=True, env=environment, timeout=200)
    assert second.returncode == 0, second.stderr
    whole = subprocess.run(
        [*command, "--out", str(tmp_path / "whole.json"), "--json"], capture_output=True, text=True, env=environment
    )
    results = [json.loads(each.stdout) for each in (second, whole)]  # and nothing else is on standard output
    for result in results:
        for name in ("seconds", "file", "adversarials", "path"):
            result.pop(name, None)
        result["stages"] = [{**stage, "seconds": 0} for stage in result["stages"]]
    assert results[0] == results[1]
    assert out.with_suffix(".safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("more", [[], ["--attack", "pgd-20", "--eps", "0.05,0.1"]])
def test_an_address_without_a_cluster_is_an_error_within_seconds(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert main(["evaluate", "no-run", *more, "--executor", "ray", "--address", "127.0.0.1:1"]) == 2
    assert "address=127.0.0.1:1: no cluster there" in capsys.readouterr().err
    assert time.monotonic() - began < 20


def test_without_ray_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["evaluate", "no-run", "--executor", "ray"]) == 2
    assert "pip install 'robustmaps[ray]'" in capsys.readouterr().err


def test_corrupted_images_are_not_shared_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no-run", "--corruptions", "folder", "--executor", "ray"]) == 2
    assert "leave out --executor" in capsys.readouterr().err

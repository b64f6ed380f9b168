"""The verbs under torchrun: ranks that die, hang or differ, and runs that go on with another number of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from robustmaps.engine.errors import InputError
from robustmaps.engine.ranks.joining import joined
from tests.helpers.ranks import APART, finish, start

DOCS = Path(__file__).parents[2] / "docs"
TRAIN = (
    "robustmaps",
    "train",
    "resnet8",
    "--precision",
    "fp32",
    "--steps",
    "2",
)


def begun(out: Path, processes: Sequence[subprocess.Popen[str]], epochs: int) -> Path:
    """The run folder, once so many epochs are in it."""
    for _ in range(600):
        for metrics in out.glob("*/metrics.jsonl"):
            if len(metrics.read_text().splitlines()) >= epochs:
                return metrics.parent
        assert all(process.poll() is None for process in processes), finish(processes)
        time.sleep(0.1)
    raise AssertionError("the run did not begin")


@pytest.mark.slow
def test_a_hung_and_a_killed_rank_end_the_run_which_goes_on_with_two_and_with_one(tmp_path: Path) -> None:
    train = [*TRAIN, "--epochs", "5", "--out", str(tmp_path), "--resume"]
    for number, hurt in enumerate((signal.SIGSTOP, signal.SIGKILL)):
        processes = start(2, train, ROBUSTMAPS_RANK_LIMIT_S="20" if hurt == signal.SIGKILL else "3")
        folder = begun(tmp_path, processes, number + 1)
        os.kill(processes[1].pid, hurt)
        began = time.monotonic()
        try:
            _, told = processes[0].communicate(timeout=15)
        finally:
            processes[1].kill()
            processes[1].communicate()
        assert time.monotonic() - began < 10
        assert processes[0].returncode == 1
        assert "rank 0: lost another rank" in told
    ((code, printed, told),) = finish(start(1, train))
    assert code == 0, told
    assert "Best epoch" in printed
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]


def test_ranks_that_differ_end_at_once_and_one_says_in_what(tmp_path: Path) -> None:
    train = [*TRAIN, "--epochs", "1", "--out", str(tmp_path)]
    (code, _, told), (other, *_) = finish(start(2, train, [*train, "--seed", "1"]), 180)
    assert code == 2
    assert other != 0
    assert "the ranks of this run differ in command line or version (command: train " in told
    assert "--seed 1 on rank 1" in told
    assert not any(tmp_path.iterdir())


def test_differences_that_the_command_line_does_not_show_are_found_too(tmp_path: Path) -> None:
    (code, _, told), (other, *_) = finish(start(2, ["tests.helpers.ranks", str(tmp_path), APART]), 180)
    assert code != 0
    assert other != 0
    assert "differ in configuration, network or data (lr: 0.1 on rank 0, 1.1 on rank 1)" in told


def test_bad_input_of_ranks(tmp_path: Path) -> None:
    train = [*TRAIN, "--epochs", "1", "--out", str(tmp_path)]
    for arguments, expected in (
        (["robustmaps", "models"], "models: can't be shared by 2 processes, only train, evaluate, diagnose can"),
        ([*train, "--batch-size", "1"], "batch_size=1: smaller than the number of processes, 2"),
    ):
        for rank, (code, _, told) in enumerate(finish(start(2, arguments), 180)):
            assert code == 2, told
            assert ("robustmaps: rank 1: error: " if rank else "robustmaps: error: ") + expected in told
    for variables, expected in (
        ({"RANK": "2"}, "RANK='2': expected a whole number from 0 to 1"),
        ({"ROBUSTMAPS_RANK_LIMIT_S": "soon"}, "ROBUSTMAPS_RANK_LIMIT_S='soon': expected seconds above 0"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_WORLD_SIZE": "2", **variables}.items():
                patch.setenv(name, value)
            with pytest.raises(InputError, match=re.escape(expected)), joined():
                pass


@pytest.mark.slow
def test_shared_verdicts_and_images_are_those_of_one_process(tmp_path: Path) -> None:
    """A curve of two budgets; the killed evaluation goes on with another number of processes."""
    ((code, _, told),) = finish(start(1, [*TRAIN, "--epochs", "1", "--out", str(tmp_path / "one")]))
    assert code == 0, told
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "killed")
    found = {}
    for name, sizes in (("one", (1,)), ("two", (2,)), ("killed", (2, 1))):
        (run,) = (tmp_path / name).iterdir()
        options = ["--attack", "pgd", "--eps", "4/255,8/255", "--restarts", "2", "--samples", "24", "--batch-size", "5"]
        for number, size in enumerate(sizes, 1):
            processes = start(size, ["robustmaps", "evaluate", str(run), *options, "--save-adversarials"])
            if number < len(sizes):
                while not list(run.glob("evaluation/*/state.json")) and processes[0].poll() is None:
                    time.sleep(0.02)
                for process in processes:
                    process.kill()
                    process.communicate()
            else:
                for code, _, told in finish(processes):
                    assert code == 0, told
        files = sorted((run / "evaluation").iterdir())
        texts = [json.loads(file.read_text()) for file in files if file.suffix == ".json"]
        kept = [{k: v for k, v in text.items() if k in ("verdicts", "distances", "perturbations")} for text in texts]
        found[name] = kept, [file.name for file in files], [f.read_bytes() for f in files if f.suffix == ".safetensors"]
    assert found["one"] == found["two"] == found["killed"]
    assert len(found["one"][2]) == 2


RECIPES = re.findall(r"```sh\n(.*?)```", (DOCS / "cluster.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_slurm_recipe_is_correct_bash_and_starts_what_exists(recipe: str, tmp_path: Path) -> None:
    """In a dry run on three machines, where every program only writes down how it was called."""
    assert recipe.startswith("#!/usr/bin/env bash\n#SBATCH")
    file, programs, calls = tmp_path / "recipe.sbatch", tmp_path / "programs", tmp_path / "calls"
    file.write_text(recipe)
    subprocess.run(["bash", "-n", file], check=True)
    programs.mkdir()
    for name in ("srun", "torchrun", "ray", "robustmaps", "scontrol"):
        answer = "printf 'node1\\nnode2\\nnode3\\n'" if name == "scontrol" else f'echo "{name} $*" >> "{calls}"'
        (programs / name).write_text(f"#!/bin/sh\n{answer}\n")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-3]", "SLURM_NNODES": "3", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "64"}
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **slurm}
    subprocess.run(["bash", file], env=environment, check=True)
    lines = calls.read_text().splitlines()
    (call,) = (line for line in lines if "robustmaps" in line)
    assert "node1:29500" in call or "node1:6379" in call
    verb, *words = call.partition("robustmaps ")[2].split()
    options = {word for word in words if word.startswith("--")}
    told = subprocess.run([sys.executable, "-m", "robustmaps", verb, "--help"], capture_output=True, text=True)
    assert options <= set(re.findall(r"--[a-z-]+", told.stdout))


def test_the_recipe_for_ray_starts_it_on_every_machine_and_stops_it(tmp_path: Path) -> None:
    (recipe,) = (recipe for recipe in RECIPES if "ray" in recipe)
    lines = [line.split() for line in recipe.replace("\\\n", "").splitlines()]
    assert [line[0] for line in lines if "ray" in line or "'ray" in line] == ["trap", "ray", "srun", "robustmaps"]

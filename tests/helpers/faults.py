"""Commands in processes that are killed on purpose: before the n-th file operation, or after some time.

Run as a program, this is a nursery: it imports everything once and forks a child for each command, so that a thousand
killed commands take minutes instead of hours.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustmaps.engine.checked import CHECKSUM
from robustmaps.engine.reading.plain import read_json
from robustmaps.training import RunFolder

# What Python reports before it changes a file. `open` counts where it may write.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")
_LIMIT_S = 600.0  # a few seconds are usual; under load a hundred times as long

TRAIN = (
    "train resnet8 --data images.npz --train-samples 128 --batch-size 64 --epochs 2 --eps 0.1 --steps 1"
    " --device cpu --precision fp32"
)
ATTACK = "--attack pgd --steps 3 --restarts 2 --samples 40 --batch-size 8"
STUDY = """\
axes: {upsample: [1, 2]}
fixed: {model: resnet8, data: images.npz, train-samples: 96, batch-size: 48, epochs: 1, eps: 0.1, steps: 1, device: cpu,
  precision: fp32}
evaluation: {attack: fgsm, samples: 20}
"""
SEARCH = """\
data: images.npz
train_samples: 96
batch_size: 48
epochs: 2
eps: 0.1
steps: 1
device: cpu
precision: fp32
"""


def write_sources(folder: Path) -> None:
    """Write what the commands read: configurations, and digits as a file, since scikit-learn's are not cached."""
    from sklearn.datasets import load_digits

    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "search.yaml").write_text(SEARCH, encoding="utf-8")
    digits = load_digits()
    np.savez(folder / "images.npz", images=(digits.images * 15).astype(np.uint8), labels=digits.target)


def words(command: str, folder: Path) -> list[str]:
    """The arguments of a command line, with the first run in ``runs`` for ``RUN``."""
    runs = sorted(path.name for path in (folder / "runs").glob("*"))
    return [word if word != "RUN" else f"runs/{runs[0]}" for word in command.split()]


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code; None if it was killed.
        operations: file operations that it began; those before the kill, if it was killed by their number.
        output: what it wrote to standard output and standard error.
        seconds: its time.
    """

    code: int | None
    operations: int
    output: str
    seconds: float


class Nursery:
    """Runs commands in forked processes, with the image cache in ``cache`` of their folder."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        command = [sys.executable, "-m", "tests.helpers.faults"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )

    def run(
        self, folder: Path, *arguments: str, before_operation: int | None = None, after_s: float | None = None
    ) -> Done:
        """Run a command line in a folder.

        Args:
            folder: the working directory.
            arguments: the command line, without the name of the program.
            before_operation: kill it before its file operation of this number, from 0.
            after_s: kill it, and the processes that it started, after this time.
        """
        order = {"folder": str(folder), "arguments": arguments, "before": before_operation, "after_s": after_s}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return Done(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@dataclass(frozen=True)
class World:
    """A folder in which commands were run, and copies of it.

    Attributes:
        nursery: runs the commands.
        whole: the folder.
    """

    nursery: Nursery
    whole: Path

    @staticmethod
    def made(nursery: Nursery, folder: Path, *commands: str) -> "World":
        """The folder after these commands.

        Args:
            nursery: runs the commands.
            folder: an empty folder for it.
            commands: command lines, as for `words`.
        """
        world = folder / "world"
        world.mkdir()
        write_sources(world)
        for command in commands:
            done = nursery.run(world, *words(command, world))
            assert done.code == 0, done.output
        return World(nursery, world.rename(folder / "whole"))

    def copy(self) -> Path:
        """A new copy where the folder was made, in place of the copy before: the cache knows images by path."""
        folder = self.whole.with_name("world")
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(self.whole, folder)


def contents(folder: Path) -> dict[str, Any]:
    """What the files in a folder say, by relative path, without times; locks and logs are left out.

    So are the checkpoint before the newest, which may be from any time before, and how fast passes were found to be.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        left_out = path.suffix == ".lock" or path.name in (".lock", "log.txt", "before.pt")
        if path.is_file() and not left_out and path.parent.name != "speeds":
            found[str(path.relative_to(folder))] = _meaning(path)
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The files that are missing, left over, or other."""
    return [
        *(f"missing: {name}" for name in expected.keys() - found.keys()),
        *(f"left over: {name}" for name in found.keys() - expected.keys()),
        *(
            f"other: {name}{_where(expected[name], found[name])}"
            for name in expected.keys() & found.keys()
            if expected[name] != found[name]
        ),
    ]


def _where(expected: Any, found: Any) -> str:
    """The first place in which two values differ, and how."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *found]:
            if expected.get(key) != found.get(key):
                return f" {key}{_where(expected.get(key), found.get(key))}"
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            if one != other:
                return f"[{place}]{_where(one, other)}"
    return f": {expected!r:.80} -> {found!r:.80}"


def _meaning(path: Path) -> Any:
    if path.suffix == ".json":
        return timeless(read_json(path))
    if path.name == "metrics.jsonl":
        return timeless(RunFolder(path.parent).read_history())
    if path.name == "last.pt":
        return timeless(RunFolder(path.parent).load_last(torch.device("cpu")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(value: Any) -> Any:
    """Plain values with tensors as hashes, without what measures time and the checksums that count it."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if not _measures_time(str(key)) and key != CHECKSUM}
    if isinstance(value, list | tuple):
        return [timeless(each) for each in value]
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    return value


def _measures_time(name: str) -> bool:
    return name.endswith(("_s", "seconds")) or name in ("data_share", "elapsed")


def _child(order: dict[str, Any], log: int, counter: int) -> None:
    """Run the command in this process, which ends with it."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    root = order["folder"]
    os.chdir(root)
    os.environ["ROBUSTMAPS_CACHE"] = os.path.join(root, "cache")
    operations = 0

    def watch(event: str, values: tuple[Any, ...]) -> None:
        nonlocal operations
        if event == "open":
            path, mode, flags = values
            writes = any(letter in mode for letter in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event in _CHANGES:
            path = values[0]
        else:
            return
        if isinstance(path, int):  # an open file
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(root):
            return
        if operations == order["before"]:
            os.kill(os.getpid(), signal.SIGKILL)
        operations += 1
        os.pwrite(counter, operations.to_bytes(4, "little"), 0)

    sys.addaudithook(watch)
    from robustmaps.cli import main

    code = main(order["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
    # Imported before the fork. No tensor is computed here: threads of a parent do not survive a fork.
    import robustmaps.cli
    import robustmaps.report
    import robustmaps.runs
    import robustmaps.studies

    for package in (robustmaps.cli, robustmaps.report, robustmaps.runs, robustmaps.studies):
        for name in package.__all__:
            getattr(package, name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()


def _run(order: dict[str, Any]) -> dict[str, Any]:
    log, counter = (os.memfd_create(name) for name in ("log", "counter"))
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            _child(order, log, counter)
        finally:
            os._exit(70)
    deadline = began + (_LIMIT_S if order["after_s"] is None else order["after_s"])
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # what it started
        os.killpg(child, signal.SIGKILL)
    output = os.pread(log, 1 << 20, 0).decode(errors="replace")
    operations = int.from_bytes(os.pread(counter, 4, 0), "little")
    for handle in (log, counter):
        os.close(handle)
    code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    return {"code": code, "operations": operations, "output": output, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    _serve()

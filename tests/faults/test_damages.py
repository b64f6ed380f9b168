"""No damaged file is accepted in silence: it is named, or the result is that of the whole file.

pytest tests/faults -m slow                          a minute or two
ROBUSTMAPS_DAMAGES=1000 pytest tests/faults -m slow -n 2
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.helpers.faults import ATTACK, TRAIN, Nursery, World, timeless, words

DAMAGES = int(os.environ.get("ROBUSTMAPS_DAMAGES", "120"))
SEED = int(os.environ.get("ROBUSTMAPS_FAULT_SEED", "0"))


def _flip(data: bytes, draw: random.Random, low: float, high: float) -> bytes:
    at = min(len(data) - 1, int(len(data) * draw.uniform(low, high)))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _zeroed(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]


def _swapped(data: bytes, draw: random.Random) -> bytes:
    size = max(1, min(512, len(data) // 4))
    first, second = draw.randrange(len(data) // 2 - size + 1), draw.randrange(len(data) // 2, len(data) - size + 1)
    swapped = bytearray(data)
    swapped[first : first + size], swapped[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )
    return bytes(swapped)


KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit near the start": lambda data, draw: _flip(data, draw, 0, 0.01),
    "a bit anywhere": lambda data, draw: _flip(data, draw, 0, 1),
    "a bit near the end": lambda data, draw: _flip(data, draw, 0.99, 1),
    "a block of zeros": _zeroed,
    "two blocks swapped": _swapped,
    "the end cut off": lambda data, draw: data[: draw.randrange(len(data))],
    "nothing left": lambda data, draw: b"",
    "more at the end": lambda data, draw: data + draw.randbytes(draw.choice((1, 16, 4096))),
}


@dataclass(frozen=True)
class Reader:
    """Files and the command that reads them.

    Attributes:
        files: a pattern for the files, relative to the folder.
        command: the command line; its JSON is compared.
    """

    files: str
    command: str


READERS = {
    "weights": Reader("runs/*/best.safetensors", "evaluate RUN --attack fgsm --samples 20 --json"),
    "checkpoint": Reader("stopped/*/last.pt", f"{TRAIN} --out stopped --resume --json"),
    "configuration": Reader("runs/*/config.yaml", "evaluate RUN --attack fgsm --samples 20 --json"),
    "listed configuration": Reader("runs/*/config.yaml", "runs runs --json"),
    "figures": Reader("runs/*/metrics.jsonl", "runs runs --json"),
    "evaluation": Reader("runs/*/evaluation/pgd*40-????????.json", "runs runs --json"),
    "evaluation found again": Reader("runs/*/evaluation/pgd*40-????????.json", f"evaluate RUN {ATTACK} --json"),
    "cached images": Reader("cache/*/*", "evaluate RUN --attack fgsm --samples 200 --json"),
    "state of an evaluation": Reader("runs/*/evaluation/*.partial/*", f"evaluate RUN {ATTACK} --eps 0.09 --json"),
    "export": Reader(
        "exported/model.safetensors", "evaluate exported/model.safetensors --attack fgsm --samples 20 --json"
    ),
    "study": Reader("study/*/evaluation/fgsm*.json", "sweep study.yaml --out study --json"),
    "record of a study": Reader("study/study.json", "report study --out page --json"),
}


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Undamaged files of every kind."""
    made = World.made(
        nursery,
        tmp_path_factory.mktemp("faults"),
        TRAIN,
        f"evaluate RUN {ATTACK}",
        "export RUN --format safetensors --out exported",
        "sweep study.yaml --out study",
    )
    # Killed on the way, for a checkpoint and the state of an evaluation; each was made once to count its operations.
    for command, result in (
        (f"{TRAIN} --out stopped", "stopped"),
        (f"evaluate RUN {ATTACK} --eps 0.09", "runs/*/*/*0.09*"),
    ):
        folder = made.copy()
        line = words(command, folder)
        operations = nursery.run(folder, *line).operations
        for path in folder.glob(result):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        nursery.run(folder, *line, before_operation=operations * 3 // 4)
        shutil.rmtree(made.whole)
        folder.rename(made.whole)
    return made


def _said(output: str) -> Any:
    """The JSON among the lines that a command wrote, without times."""
    for line in output.splitlines():
        if line.startswith("{"):
            return timeless(json.loads(line))
    return None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", READERS)
def test_damage_is_noticed(name: str, world: World) -> None:
    reader = READERS[name]
    files = sorted(
        path.relative_to(world.whole)
        for path in world.whole.glob(reader.files)
        if path.is_file() and path.stat().st_size
    )
    assert files, f"no file to damage: {reader.files}"
    reference = world.copy()
    done = world.nursery.run(reference, *words(reader.command, reference))
    assert done.code == 0, done.output
    expected = _said(done.output)
    draw = random.Random(f"{SEED} {name}")
    silent = []
    for number in range(max(len(KINDS), DAMAGES // len(READERS))):
        folder = world.copy()
        kind, file = list(KINDS)[number % len(KINDS)], draw.choice(files)
        before = (folder / file).read_bytes()
        after = KINDS[kind](before, draw)
        if after == before:
            continue
        (folder / file).write_bytes(after)
        done = world.nursery.run(folder, *words(reader.command, folder))
        assert done.code is not None, f"{file}, {kind}: did not end"
        assert "Traceback" not in done.output, f"{file}, {kind}: {done.output}"
        named = file.name in done.output or any(str(parent) in done.output for parent in file.parents if parent.name)
        if done.code == 0 and _said(done.output) != expected and not (named and "warning" in done.output):
            silent.append(f"{file}, {kind}: {done.output}")
        if done.code != 0 and not named:
            silent.append(f"{file}, {kind}, not named: {done.output}")
    assert not silent, "\n".join(silent)

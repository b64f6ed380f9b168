"""Work that is killed at any moment and started again ends as if it had never been killed.

    pytest tests/faults -m slow                          a few minutes
    ROBUSTMAPS_KILLS=1000 pytest tests/faults -m slow -n 2

Half of the kills come before a file operation, half after a random time, which also ends the processes that the command
started. Nothing that the killed command left may stay behind.
"""

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.faults import ATTACK, TRAIN, Nursery, World, contents, differences, words

KILLS = int(os.environ.get("ROBUSTMAPS_KILLS", "90"))
SEED = int(os.environ.get("ROBUSTMAPS_FAULT_SEED", "0"))


PARTS = {"cache": "cache", "run": "runs", "evaluation": "runs/*/evaluation"}
"""The folders in a world that not every command needs."""


@dataclass(frozen=True)
class Work:
    """A command and how it is started again.

    Attributes:
        command: the command line.
        again: the command line after a kill, if another.
        needs: which of `PARTS` it needs to be there.
    """

    command: str
    again: str = ""
    needs: tuple[str, ...] = ("cache",)


WORKS = {
    "train": Work(TRAIN, TRAIN + " --resume"),
    "evaluate": Work(f"evaluate RUN {ATTACK} --save-adversarials", needs=("cache", "run")),
    "curve": Work(f"evaluate RUN {ATTACK} --eps 0.02,0.05,0.1", needs=("cache", "run")),
    "diagnose": Work("diagnose RUN --samples 16", needs=("cache", "run")),
    "cache": Work("data prepare images.npz", needs=()),
    "sweep": Work("sweep study.yaml"),
    "search": Work("search resnet8 --config search.yaml --budget 4x --jobs 1"),
    "report": Work("report runs --out page", needs=("cache", "run", "evaluation")),
    "export": Work("export RUN --format safetensors", needs=("cache", "run")),
    "enlarge": Work("enlarge RUN --upsample 2 --save larger", needs=("cache", "run")),
}


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A folder with a cache, a run and an evaluation, from which each test takes what it needs."""
    return World.made(nursery, tmp_path_factory.mktemp("faults"), TRAIN, f"evaluate RUN {ATTACK}")


def _copy(world: World, work: Work) -> Path:
    """A copy with what the work needs."""
    folder = world.copy()
    for need, pattern in PARTS.items():
        for path in [] if need in work.needs else folder.glob(pattern):
            shutil.rmtree(path)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(max(3600, 20 * KILLS))
@pytest.mark.parametrize("name", WORKS)
def test_a_killed_command_ends_as_if_it_had_not_been_killed(name: str, world: World) -> None:
    work = WORKS[name]
    reference = _copy(world, work)
    whole = world.nursery.run(reference, *words(work.command, reference))
    assert whole.code == 0, whole.output
    expected = contents(reference)
    draw = random.Random(f"{SEED} {name}")
    for _ in range(max(1, KILLS // len(WORKS))):
        folder = _copy(world, work)
        kills = []
        for attempt in range(draw.choice((1, 1, 2, 3))):
            line = words(work.again if attempt and work.again else work.command, folder)
            if draw.random() < 0.5:
                kill = {"before_operation": draw.randrange(whole.operations)}
            else:
                kill = {"after_s": draw.uniform(0, whole.seconds)}
            kills.append(kill)
            world.nursery.run(folder, *line, **kill)
        done = world.nursery.run(folder, *words(work.again or work.command, folder))
        assert done.code == 0, f"after {kills}: {done.output}"
        assert not differences(expected, contents(folder)), f"after {kills}"

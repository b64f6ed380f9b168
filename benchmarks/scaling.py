"""How time and memory grow: with batch, image, map, data set, processes, and the number of runs of a study.

    python benchmarks/scaling.py                     all of them: about ten minutes on two cores
    python benchmarks/scaling.py batch runs --plot scaling.png

Each point is measured in a process of its own, the smaller of two times counts, and memory is the peak of the process
above what it had taken before. Exponents are slopes of straight lines through the logarithms: 1 is proportional, 0 no
growth at all. The intervals are Student's, for the slope of such a line; few points make them wide. Images are random,
and the runs of a study are stand-ins: folders as runs leave them.
"""

import argparse
import atexit
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

MOST_REPORTED = 1000


@dataclass(frozen=True)
class Axis:
    """What grows.

    Attributes:
        what: in words.
        values: its values.
        measure: from a value to seconds by the name of what takes them, called twice in a process of its own.
    """

    what: str
    values: tuple[float, ...]
    measure: Callable[[float], dict[str, float]]


def steps(network: str = "resnet8", strides: str = "122", batch: int = 32, pixels: int = 32) -> dict[str, float]:
    """Seconds of an adversarial training step (PGD-5)."""
    import torch

    from robustmaps import models
    from robustmaps.defenses import create
    from robustmaps.engine.view import AttackEngine
    from robustmaps.training import Trainee, TrainOptions
    from robustmaps.training._state import Sums
    from robustmaps.training._stepper import BatchTrainer

    torch.manual_seed(0)
    model = models.create(network, num_classes=10, strides=strides)
    x, y = torch.rand(batch, 3, pixels, pixels), torch.randint(10, (batch,))
    engine = AttackEngine(model)
    engine.settle(x[:8])
    options = TrainOptions(batch_size=batch, device="cpu", precision="fp32")
    trainee = Trainee(model, "fp32", False, batch).train()
    trainer = BatchTrainer(trainee, engine, create("at", "linf", 8 / 255, steps=5), options, 10, None)
    sums = Sums(torch.device("cpu"))
    trainer(x, y, batch, 0, 0, 3, sums)
    began = time.perf_counter()
    for step in (1, 2):
        trainer(x, y, batch, 0, step, 3, sums)
    return {"training step": (time.perf_counter() - began) / 2}


def reading(count: float) -> dict[str, float]:
    """Seconds to decode so many images from a file, to open them again, and to draw an epoch of batches."""
    from robustmaps import data
    from robustmaps.data import batches

    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROBUSTMAPS_CACHE"] = f"{folder}/cache"
        draw, path = np.random.default_rng(0), f"{folder}/images.npz"
        images = draw.integers(0, 256, (int(count), 32, 32, 3), dtype=np.uint8)
        np.savez(path, images=images, labels=np.arange(int(count)) % 10)
        del images
        times = [time.perf_counter()]
        for _ in range(2):
            opened = data.load(path)
            times.append(time.perf_counter())
        for _ in batches(opened.train, 128, seed=0, epoch=0, augmentation=opened.augmentation):
            pass
        times.append(time.perf_counter())
    return dict(zip(("decode once", "open", "epoch of batches"), np.diff(times).tolist(), strict=True))


def processes(count: float) -> dict[str, float]:
    """Seconds of an epoch of adversarial training on so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        command = "train resnet8 --data digits --image-size 32 --train-samples 1024 --validation 0 --epochs 2 --steps 5"
        command += f" --device cpu --precision fp32 --out {folder} --json"
        launch = ["torch.distributed.run", "--nproc-per-node", f"{count:.0f}", "--master-port", "29531", "-m"]
        words = [sys.executable, "-m", *(launch if count > 1 else []), "robustmaps", *command.split()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(words, check=True, capture_output=True, env=environment)
        (metrics,) = Path(folder).glob("*/metrics.jsonl")
        return {"epoch": min(json.loads(line)["train_s"] for line in metrics.read_text().splitlines())}


def autoattack(count: float) -> dict[str, float]:
    """Seconds to evaluate so many images with AutoAttack, in batches of 64."""
    import robustmaps
    from robustmaps import attacks, data
    from robustmaps.evaluation import evaluate

    with tempfile.TemporaryDirectory() as folder:
        command = (
            "train resnet8 --data digits --validation 0 --epochs 5 --steps 3 --eps 0.1 --lr 0.2 --schedule one-cycle"
        )
        words = [sys.executable, "-m", "robustmaps", *command.split(), "--device", "cpu", "--precision", "fp32"]
        subprocess.run([*words, "--out", folder], check=True, capture_output=True)
        (run,) = Path(folder).iterdir()
        network = robustmaps.load(run)
        x, y = data.load("digits").test.subset(int(count)).tensors()
        began = time.perf_counter()
        evaluate(network, x, y, attacks.AutoAttack("linf", 0.1).stages, batch_size=64, precision="fp32", checks=False)
        return {"AutoAttack": time.perf_counter() - began}


def runs(count: float) -> dict[str, float]:
    """Seconds to list, plan and report a study of so many runs."""
    from robustmaps.config import make_study as study_of
    from robustmaps.report import report
    from robustmaps.runs import read_runs
    from robustmaps.studies import plan_sweep

    found, number = {}, int(count)
    folder = _stand_ins(number)
    began = time.perf_counter()
    assert len(read_runs(folder)) == number
    found["list"] = time.perf_counter() - began
    axes = {"strides": ["122", "112"], "seed": list(range(math.ceil(number / 2)))}
    study = study_of({"axes": axes, "fixed": {"model": "resnet8", "device": "cpu"}}, Path("many.yaml"))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        plan_sweep(study, Path(place) / "planned", dry=True, timed=False, jobs=1)
        found["plan"] = time.perf_counter() - began
        if number <= MOST_REPORTED:
            began = time.perf_counter()
            report(folder, Path(place) / "page", pictures=False)
            found["report"] = time.perf_counter() - began
    return found


@cache
def _stand_ins(number: int) -> Path:
    """A folder of so many runs, removed at the end of the process; nothing of it has to survive a power cut."""
    from report_page import make_study

    place = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, place)
    with mock.patch("os.fsync"):
        make_study(Path(place) / "runs", number)
    return Path(place) / "runs"


MAPS = {8.0: "122", 16.0: "112", 32.0: "111"}
AXES = {
    "batch": Axis("images in a batch", (8, 16, 32, 64, 128), lambda n: steps(batch=int(n))),
    "image": Axis("pixels a side, network as it is", (16, 24, 32, 48, 64), lambda n: steps(pixels=int(n))),
    "map": Axis("pixels a side of the last map, strides shrunk", tuple(MAPS), lambda n: steps(strides=MAPS[n])),
    "data": Axis("images in the data set", (1e3, 1e4, 1e5), reading),
    "processes": Axis("processes, one thread each", (1, 2), processes),
    "autoattack": Axis("images evaluated", (32, 64, 128, 256), autoattack),
    "runs": Axis("runs of a study", (10, 100, 1e3, 1e4), runs),
}


def measured(axis: str, value: float) -> dict[str, float]:
    """The smaller of two measurements, and the peak of memory in bytes; in this process."""
    before = _peak()
    both = [AXES[axis].measure(value) for _ in range(2)]
    return {**{name: min(one[name] for one in both) for name in both[0]}, "memory": float(_peak() - before)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def exponent(values: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """The slope of a line through the logarithms, and the half-width of its 95 % interval (infinite for two points)."""
    from scipy.stats import linregress, t

    found = linregress(np.log(values), np.log(costs))
    free = len(values) - 2
    return float(found.slope), float(t.ppf(0.975, free) * found.stderr) if free else math.inf


def _in_process(axis: str, value: float) -> dict[str, float]:
    command = [sys.executable, __file__, axis, "--value", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{axis} {value:g}: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(axis: str) -> dict[str, list[tuple[float, float]]]:
    """Measure an axis, print it, and return what it took by name."""
    values = AXES[axis].values
    points = [_in_process(axis, value) for value in values]
    lines: dict[str, list[tuple[float, float]]] = {}
    for value, point in zip(values, points, strict=True):
        for name, cost in point.items():
            if cost > 0:
                lines.setdefault(name, []).append((value, cost))
    print(f"\n{axis}: {AXES[axis].what}")
    print(f"{'':>18}" + "".join(f"{value:>11g}" for value in values) + "   exponent")
    for name, line in lines.items():
        scale, unit = (1e6, "MB") if name == "memory" else (1.0, "s")
        known = dict(line)
        cells = "".join(f"{known[value] / scale:>11.3g}" if value in known else f"{'':>11}" for value in values)
        slope = ""
        if len(line) > 1:
            middle, half = exponent(*zip(*line, strict=True))
            slope = f"{middle:.2f}" + (f" +- {half:.2f}" if math.isfinite(half) else "")
        print(f"{name + ', ' + unit:>18}{cells}   {slope}", flush=True)
    return lines


def plot(path: str, found: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    """A panel per axis: seconds, on logarithmic scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3), layout="constrained")
    panels: Any = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (axis, lines) in zip(panels, found.items(), strict=True):
        for name, line in lines.items():
            if name != "memory":
                panel.plot(*zip(*line, strict=True), marker="o", label=name)
        panel.set(xscale="log", yscale="log", xlabel=AXES[axis].what, ylabel="seconds")
        panel.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure the axes that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", default=list(AXES), help=", ".join(AXES))
    parser.add_argument("--plot", help="a PNG to write")
    parser.add_argument("--value", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.axes) - set(AXES):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(AXES)}")
    if given.value is not None:
        print(json.dumps(measured(given.axes[0], given.value)))
        return
    found = {axis: table(axis) for axis in given.axes}
    if given.plot:
        plot(given.plot, found)


if __name__ == "__main__":
    main()

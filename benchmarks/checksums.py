r"""The price of checksums, of the disk and of checkpoints, as a share of a training and of an evaluation.

The calls that compute checksums and those that wait for the disk are timed inside a real training and a real
evaluation, so that both sides are of one run; as are those in which a training waits for a checkpoint, which is written
beside it. The speed of the hashes of the standard library comes first.

    python benchmarks/checksums.py --images 1280 --epochs 2
    python benchmarks/checksums.py --images 160 --epochs 3 --training-only
    python benchmarks/checksums.py --images 160 --size 16 --epochs 6 --model resnet18 --steps 1 --every 4 \
        --training-only
"""

import argparse
import hashlib
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from robustmaps import data
from robustmaps.config import AttackConfig, RunConfig, from_mapping
from robustmaps.engine import checked
from robustmaps.engine.device import device_name
from robustmaps.runs import Options, evaluate_checkpoint, train
from robustmaps.training._loop import Loop
from robustmaps.training._saving import Saver

CHECKSUMS = ((zlib, "crc32"), (checked, "_canonical"))
DISK = ((os, "fsync"), (np.memmap, "flush"))
CHECKPOINTS, END = ((Loop, "save"),), ((Saver, "__exit__"),)


@contextmanager
def timed(places: tuple[tuple[Any, str], ...], spent: list[float], beside: list[float] | None = None) -> Iterator[None]:
    """Add the seconds of each call of these functions to the list, or to the other if it is made in another thread."""

    def timing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*given)
            finally:
                here = beside is None or threading.current_thread() is threading.main_thread()
                (spent if here or beside is None else beside).append(time.perf_counter() - began)

        return call

    with ExitStack() as stack:
        for owner, name in places:
            stack.enter_context(mock.patch.object(owner, name, timing(getattr(owner, name))))
        yield


def row(name: str, work: Callable[[], Any]) -> Any:
    """Print the shares of a piece of work; returns its result."""
    sums: list[float] = []
    waits: list[float] = []
    beside: list[float] = []
    saves: list[float] = []
    end: list[float] = []
    began = time.perf_counter()
    with timed(CHECKSUMS, sums), timed(DISK, waits, beside), timed(CHECKPOINTS, saves), timed(END, end):
        result = work()
    total = time.perf_counter() - began
    # Beside the last checkpoint there is nothing left to do.
    parts = (sums, waits, beside, saves[:-1], saves[-1:] + end)
    costs = (f"{1e3 * sum(each):.0f} ms | {sum(each) / total:.2%}" for each in parts)
    name = f"{name}, {len(saves)} checkpoints" if saves else name
    print(f"| {name} | {total:.1f} s | {' | '.join(costs)} |", flush=True)
    return result


def speeds() -> None:
    """Print the speed of each hash on 64 MiB, the median of five."""
    content = os.urandom(1 << 26)
    print("| hash | GB/s |\n| --- | --- |")
    for name, function in (
        ("crc32", zlib.crc32),
        ("sha256", lambda content: hashlib.sha256(content).digest()),
        ("blake2b", lambda content: hashlib.blake2b(content).digest()),
    ):
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            function(content)
            seconds.append(time.perf_counter() - began)
        print(f"| {name} | {len(content) / sorted(seconds)[2] / 1e9:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1280, help="images to train on")
    parser.add_argument("--size", type=int, default=32, help="their side in pixels")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--steps", type=int, default=10, help="steps of the attack in training")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--training-only", action="store_true")
    given = parser.parse_args()
    print(f"{device_name(torch.device('cpu'))}, torch {torch.__version__}.\n")
    if not given.training_only:
        speeds()
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", given.images), ("test", given.images // 4)):
        labels = np.arange(count) % 10
        noise = rng.integers(0, 128, (count, 3, given.size, given.size))
        arrays |= {f"x_{split}": (noise + 12 * labels[:, None, None, None]).astype(np.uint8), f"y_{split}": labels}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "set.npz")
        np.savez(source, **arrays)
        data.prepare(source, cache_dir=Path(folder, "cache"))
        values = {"data": str(source), "model": given.model, "epochs": given.epochs, "batch_size": 64, "eps": 8 / 255}
        config = from_mapping(
            {**values, "steps": given.steps, "checkpoint_every_s": given.every, "device": "cpu", "precision": "fp32"},
            RunConfig(),
        )
        images = data.load(source, cache_dir=Path(folder, "cache"))
        kinds = ("checksums", "waiting for the disk", "the same beside the work", "for checkpoints", "for the last one")
        print(f"\n| work | total | {' | share | '.join(kinds)} | share |\n|" + " --- |" * 12)
        run = row(f"training, {given.epochs} epochs of {len(images.train)}", lambda: train(config, folder, data=images))
        if given.training_only:
            return
        options = Options(data=images, batch_size=32, device="cpu", precision="fp32", save_adversarials=True)
        row(
            f"evaluation of {len(images.test)}",
            lambda: evaluate_checkpoint(run.folder, AttackConfig(steps=20), options),
        )


if __name__ == "__main__":
    main()

"""Trains in several processes: ``python -m tests.helpers.ranks FOLDER NAME...``, and starts them as torchrun does."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from robustmaps import defenses
from robustmaps.data import Augmentation, Dataset, ImageSet
from robustmaps.defenses import Defense
from robustmaps.engine import ranks
from robustmaps.engine.ranks.joining import joined
from robustmaps.training import Earlier, TrainOptions, fit

# 37 images: the last batch is smaller, and shared out unevenly.
OPTIONS = TrainOptions(epochs=2, batch_size=16, lr=0.05, schedule="constant", device="cpu", precision="fp32")
APART = "apart"
VARIANTS = {
    "parts": ("at", {"accumulate": 3, "clip_grad": 0.5}),
    "awp parts": ("trades-awp", {"accumulate": 2}),
    "mixed": ("at", {"cutmix": 0.5, "label_smoothing": 0.1, "ema": 0.9}),
    "swa": ("at", {"swa": 0.5}),
    "tiny": ("at", {"batch_size": 3}),
    "streamed": ("at", {"memory_share": 0.0}),
    "warm": ("dajat", {"eps_warmup": 1.0}),
    "l2": ("at", {}),
    "norms": ("at", {}),
    "synced": ("at", {"sync_batch_norm": True}),
    "synced awp": ("trades-awp", {"sync_batch_norm": True, "ema": 0.9, "batch_size": 20}),
    "synced free": ("free-at", {"sync_batch_norm": True}),
    "synced parts": ("dajat", {"sync_batch_norm": True, "accumulate": 3, "swa": 0.5}),
    "synced tiny": ("at", {"sync_batch_norm": True, "batch_size": 3, "epochs": 1, "lr": 0.01}),
    "growing": ("at", {"sync_batch_norm": True, "ema": 0.9}),
}


def start(
    size: int, arguments: Sequence[str], others: Sequence[str] | None = None, **variables: str
) -> list[subprocess.Popen[str]]:
    """Processes with the environment that torchrun gives them; ``others`` are the arguments of all but the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "ROBUSTMAPS_RANK_LIMIT_S": "60", **variables}
    return [
        subprocess.Popen(
            [sys.executable, "-m", *(arguments if rank == 0 or others is None else others)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], within_s: float = 300.0) -> list[tuple[int, str, str]]:
    """Exit codes and what they printed."""
    try:
        told = [process.communicate(timeout=within_s) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def plain_net(*, norms: bool = False) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        norm: list[nn.Module] = [nn.BatchNorm2d(4)] if norms else []
        return nn.Sequential(nn.Conv2d(1, 4, 3), *norm, nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))


def images(count: int, seed: int) -> ImageSet:
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(count) % 2
    noise = torch.randint(0, 128, (count, 1, 6, 6), generator=generator)
    return ImageSet((noise + 64 * labels[:, None, None, None]).to(torch.uint8), labels)


def growing_net(factor: float) -> nn.Sequential:
    """With maps of any size, and the same weights for each."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        larger = nn.Upsample(scale_factor=factor)
        body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(4))
        return nn.Sequential(larger, *body, nn.Flatten(), nn.Linear(64, 2))


def bright() -> Dataset:
    return Dataset(
        name="bright",
        train=images(37, 0),
        validation=images(50, 1),
        test=images(40, 2),
        classes=("dark", "bright"),
        mean=(0.4,),
        std=(0.2,),
        augmentation=Augmentation(pad=1, flip=True),
        spec="bright",
        fingerprint="bright",
    )


class Read:
    """In place of the checksums of a file: notes the rows that are read."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def verify(self, rows: torch.Tensor | None) -> None:
        self.rows.extend([] if rows is None else rows.tolist())


def trained(name: str) -> dict[str, Any]:
    """The weights and the history of a defence or variant, the sizes of its reductions, and the rows that it read."""
    defense, options = VARIANTS.get(name, (name, {}))
    data, read = bright(), Read()
    data = replace(data, train=replace(data.train, blocks=read))
    network, sizes, reduce = plain_net(norms=name.startswith(("norms", "synced"))), list[int](), dist.all_reduce
    earlier = []
    if name == "growing":
        network, earlier = growing_net(2.0), [Earlier(growing_net(1.0), 1)]

    def counting(flat: torch.Tensor) -> None:
        sizes.append(flat.numel())
        reduce(flat)

    dist.all_reduce = counting
    try:
        used = replace(OPTIONS, **options)
        result = fit(network, data, made(defense, "l2" if name == "l2" else "linf"), used, earlier=earlier)
    finally:
        dist.all_reduce = reduce
    return {"weights": network.state_dict(), "history": list(result.history), "reductions": sizes, "read": read.rows}


def made(name: str, norm: str) -> Defense:
    networks = {"helper": plain_net()} if name.startswith("hat") else {}
    return defenses.create(name, norm, 0.1, **networks)


def main(folder: str, *names: str) -> None:
    with joined():
        for name in names:
            if name == APART:
                fit(plain_net(), bright(), made("at", "linf"), replace(OPTIONS, lr=0.1 + ranks.rank()))
            torch.save(trained(name), Path(folder) / f"{name}-{ranks.rank()}.pt")
    if (left := [name for name in threads() if "gloo" in name]) != []:
        raise SystemExit(f"threads of the group outlive it: {left}")


def threads() -> list[str]:
    """The names of this process's threads, those that are not Python's included; none where the system hides them."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


if __name__ == "__main__":
    main(*sys.argv[1:])

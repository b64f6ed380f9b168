"""Training images read from their file instead of from memory: how fast, and what share of a step waits for them.

The set is decoded first, as any is. Before each row the system's cache of the decoded file is dropped, so that every
image comes from the disk; ``in memory`` reads a warm cache. ``alone`` is the reader without a network; then come steps
of adversarial and of standard training.

    python benchmarks/streaming.py --data FOLDER --image-size 128 --model resnet8 --steps 30
"""

import argparse
import contextlib
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from robustmaps import data, models
from robustmaps.attacks import PGD
from robustmaps.data.cache import cache_root
from robustmaps.defenses import AT, Defense, Standard
from robustmaps.engine.device import device_name, resolve_device
from robustmaps.training import Interrupted, TrainOptions, fit


def drop_cache() -> None:
    """Have the system forget the decoded files; nothing may have them mapped."""
    gc.collect()
    for path in cache_root().glob("*/*-images.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(args: argparse.Namespace) -> data.Dataset:
    """The set, with random resized crops where a size is given; few validation images, since they take memory."""
    crop = True if args.image_size else None
    return data.load(args.data, image_size=args.image_size, resized_crop=crop, validation=100)


def read(args: argparse.Namespace, workers: int, augmented: bool) -> float:
    """Images a second that the reader yields."""
    dataset = load(args)
    epoch: Iterator[object] = data.batches(
        dataset.train,
        args.batch_size,
        seed=0,
        epoch=0,
        workers=workers,
        augmentation=dataset.augmentation if augmented else None,
    )
    began = time.perf_counter()
    count = sum(1 for _ in islice(epoch, args.batches))
    return count * args.batch_size / (time.perf_counter() - began)


def train(args: argparse.Namespace, defense: Defense, memory_share: float, workers: int) -> tuple[float, float]:
    """Images a second, and the share of the time in which training waited for images."""
    dataset = replace(
        load(args), validation=data.ImageSet(torch.empty(0, 1, 1, 1, dtype=torch.uint8), torch.empty(0).long())
    )
    model = models.create(args.model, num_classes=dataset.num_classes, mean=dataset.mean, std=dataset.std)
    options = TrainOptions(
        epochs=1, batch_size=args.batch_size, device=args.device, memory_share=memory_share, workers=workers
    )
    figures: dict[str, float] = {}
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps >= args.steps

    with contextlib.suppress(Interrupted):
        fit(model, dataset, defense, options, watcher=lambda p: figures.update(p.figures), should_stop=stop)
    return figures["images_per_s"], figures["data_share"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=100, help="of the reader alone")
    parser.add_argument("--steps", type=int, default=30, help="of training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--defense", choices=["pgd-10", "standard"], help="one of the two instead of both")
    args = parser.parse_args()
    began = time.perf_counter()
    dataset = load(args)
    images = dataset.train.images
    size = tuple(images.shape)
    loading, stored = time.perf_counter() - began, Path(args.data).name
    print(f"{stored}: {size}, {images.numel() / 1e9:.2f} GB, opened in {loading:.1f} s")
    print(f"{device_name(resolve_device(args.device))}, PyTorch {torch.__version__}")
    del dataset, images
    for augmented in (False, True):
        for workers in (1, 2, 4):
            drop_cache()
            rate = read(args, workers, augmented)
            print(
                f"alone, {'augmented' if augmented else 'bytes only'}, {workers} workers: {rate:.0f} images/s",
                flush=True,
            )
    defenses = {"pgd-10": AT(PGD(eps=8 / 255, steps=10)), "standard": Standard()}
    for name in [args.defense] if args.defense else list(defenses):
        for label, share, workers in (("in memory", 1.0, 1), ("streamed", 0.0, 1), ("streamed", 0.0, 2)):
            if share == 0:
                drop_cache()
            rate, waited = train(args, defenses[name], share, workers)
            print(
                f"{name}, {label}, {workers} workers: {rate:.1f} images/s, data share {100 * waited:.2f} %", flush=True
            )


if __name__ == "__main__":
    main()

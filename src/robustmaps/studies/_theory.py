"""The theory laboratory with random and trained weights, and its files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.analysis import POOLS, Laboratory, Toy, Variation, Weights, laboratory, standard_variations
from robustmaps.config import DataConfig
from robustmaps.data import Dataset
from robustmaps.defenses import Standard
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.random import derive_seed, stream
from robustmaps.engine.writing.outputs import claim, is_picture
from robustmaps.figures import plot_theory
from robustmaps.networks import load_data
from robustmaps.training import TrainOptions, fit

TRAINED = "trained weights"
_SHOWN = 16


@dataclass(frozen=True)
class TheoryResult:
    """The measurements and their files."""

    found: Laboratory
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary for JSON."""
        return {**self.found.to_dict(), "files": [str(path) for path in self.files]}


def theory(
    *,
    draws: int = 20,
    steps: int = 20,
    seed: int = 0,
    data: str = "digits",
    image_size: int = 32,
    networks: int = 5,
    epochs: int = 10,
    samples: int = 3000,
    out: str | Path | None = None,
    watcher: Watcher = ignore,
) -> TheoryResult:
    """Measure the two laws of the theory on random and trained networks.

    Args:
        draws: random networks per point.
        steps: steps of projected gradient descent in the basic case; 0 skips it.
        seed: seed of all draws.
        data: images to train on.
        image_size: side of those images in pixels.
        networks: trained networks per pool, each with its own seed; 0 for none.
        epochs: epochs of training.
        samples: number of training images.
        out: folder for ``theory.json`` and ``theory.png``; None writes nothing.
        watcher: receives progress reports.
    """
    files = () if out is None else (Path(out) / "theory.json", Path(out) / "theory.png")
    claim(*files[:1])
    claim(*files[1:], ours=is_picture)
    check_whole("draws", draws, 1)
    check_whole("steps", steps, 0)
    check_whole("networks", networks, 0)
    if networks == 1:
        raise InputError("networks=1: a single network gives no interval; expected 0 or at least 2")
    variations = [variation for pool in POOLS for variation in standard_variations(pool)]
    if networks:
        loaded = load_data(DataConfig(data, image_size=image_size, augment="none"), watcher)
        loaded = replace(loaded, train=loaded.train.subset(samples))
        for pool in POOLS:
            variations.append(_trained(Toy(pool=pool), loaded, networks, epochs, seed, watcher))
    found = laboratory(variations, draws=draws, steps=steps, seed=seed, watcher=watcher)
    if files:
        plot_theory(files[1], found)
        write_json(files[0], found.to_dict())
    return TheoryResult(found, files)


def _trained(toy: Toy, data: Dataset, networks: int, epochs: int, seed: int, watcher: Watcher) -> Variation:
    """One-layer networks trained at stride 1, measured with the same weights at larger strides."""
    side = min(data.image_size)
    toy = replace(toy, in_channels=data.in_channels, image_px=side)
    weights = []
    for number in range(networks):
        network = OneLayer(toy, data.num_classes, derive_seed(seed, "trained", number))
        options = TrainOptions(
            epochs=epochs,
            batch_size=64,
            optimizer="adamw",
            lr=1e-2,
            schedule="one-cycle",
            seed=number,
            precision="fp32",
            device="cpu",
            validate_every=epochs,
        )
        fit(network, data, Standard(), options)
        weights.append(network.weights(stream(seed, "pair", number)))
        watcher(Progress(f"training, {toy.pool} pooling", number + 1, networks, "networks"))
    images = data.test.subset(_SHOWN).tensors()[0]
    strides = [stride for stride in (1, 2, 4) if side % stride == 0]
    toys = tuple(replace(toy, stride=stride) for stride in strides)
    return Variation(TRAINED, toys, tuple((each, images) for each in weights))


class OneLayer(nn.Module):
    """The theory's network as a classifier: a convolution, ReLU, a global pool, and a linear layer."""

    def __init__(self, toy: Toy, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(toy.in_channels, toy.channels, toy.kernel, padding=toy.kernel // 2)
            self.head = nn.Linear(toy.channels, classes)
        self.largest = toy.pool == "max"

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        maps = self.conv(x).relu()
        logits: Tensor = self.head(maps.amax((2, 3)) if self.largest else maps.mean((2, 3)))
        return logits

    def weights(self, generator: torch.Generator) -> Weights:
        """Its weights, with the difference of two classes' logits as the read-out."""
        first, second = torch.randperm(len(self.head.weight), generator=generator)[:2].tolist()
        bias = None if self.conv.bias is None else self.conv.bias.detach()
        readout = (self.head.weight[first] - self.head.weight[second]).detach()
        return Weights((self.conv.weight.detach(),), (bias,), readout)

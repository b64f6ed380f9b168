"""Runs of an attack, one per sample and variant (a restart or target), grouped so that batches stay full."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from robustmaps.engine.memory import usual_batch
from robustmaps.engine.progress import Progress, Watcher


def waves(standing: Tensor, variants: int, batch_size: int | None) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Waves of parallel runs: sample indices and variants, each (R,) with R <= ``batch_size``, and how many runs wait.

    The first variants of all samples come first. ``standing`` (N,) is read again before each wave, so that samples
    broken in one wave are missing from the next.
    """
    batch_size = batch_size or usual_batch(standing.device)
    samples = torch.arange(len(standing), device=standing.device).repeat(variants)
    kinds = torch.arange(variants, device=standing.device).repeat_interleave(len(standing))
    while True:
        left = standing[samples]
        samples, kinds = samples[left], kinds[left]
        if len(samples) == 0:
            return
        size = -(-len(samples) // -(-len(samples) // batch_size))
        yield samples[:size], kinds[:size], len(samples) - size
        samples, kinds = samples[size:], kinds[size:]


def seeds(count: int, generator: torch.Generator | None) -> list[int]:
    """Seeds for ``count`` variants, the attack's only draws from ``generator``."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (count,), generator=generator, device=device).tolist()


def fork(seed: int, device: torch.device) -> torch.Generator:
    """The generator of one variant, independent of other variants and of which samples are broken."""
    generator = torch.Generator(device=device)
    generator.manual_seed(seed)
    return generator


def one_each(samples: Tensor) -> Tensor:
    """Rows where each sample index (R,) occurs first; writing two images to one sample could mix them."""
    order = samples.argsort(stable=True)
    ordered = samples[order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


@dataclass
class Clock:
    """Reports to a watcher how many steps of all runs are done; steps saved by broken samples count as done."""

    name: str
    steps: int
    runs: int
    watcher: Watcher

    def __post_init__(self) -> None:
        self._waiting = self._done = 0

    def start(self, waiting: int) -> None:
        """Begin a wave; this many runs are still waiting."""
        self._waiting, self._done = waiting, 0

    def tick(self, active: int) -> None:
        """Count a step of the wave, of which this many runs go on."""
        self._done += 1
        if self._done % 10 == 0 or self._done == self.steps:
            total = self.runs * self.steps
            left = self._waiting * self.steps + active * (self.steps - self._done)
            self.watcher(Progress(self.name, total - left, total, "steps"))


State = TypeVar("State")


def select(state: State, rows: Tensor) -> State:
    """Select rows of a dataclass of tensors with the same first dimension."""
    values: dict[str, Any] = {field.name: getattr(state, field.name)[rows] for field in fields(state)}  # type: ignore[arg-type]
    return replace(state, **values)  # type: ignore[type-var]

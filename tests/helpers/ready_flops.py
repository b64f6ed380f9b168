"""The operations of ready studies, counted without their images."""

from functools import cache

import torch

from robustmaps.config import DataConfig, DefenseConfig, ModelConfig, ReadyStudy, RunConfig, Scale
from robustmaps.data import KNOWN, Augmentation, Dataset, ImageSet
from robustmaps.networks import resolve
from robustmaps.studies._costs import estimate_run, forward_flops, training_passes


def ready_flops(ready: ReadyStudy, scale: Scale) -> float:
    """Operations of all runs of a ready study, counted without its images.

    Evaluations count as far as their steps are known, as if every image withstood every attack.
    """
    study = ready.study(scale)
    total = 0.0
    for point in study.points:
        config = point.config
        estimate = estimate_run(
            resolve(config),
            _blank(config.data),
            study.evaluations,
            _forward(config.model, config.data),
            _passes(config.defense),
        )
        total += estimate.flops
    return total


@cache
def _forward(model: ModelConfig, data: DataConfig) -> tuple[int, ...]:
    with torch.device("meta"):  # no weights are drawn
        return forward_flops(resolve(RunConfig(model, data)), _blank(data))


@cache
def _passes(defense: DefenseConfig) -> float:
    """Hardly depends on the network, so the smallest is taken."""
    run = resolve(RunConfig(defense=defense))
    return training_passes(run, _blank(run.config.data))


@cache
def _blank(config: DataConfig) -> Dataset:
    """Black images, as many and as large as those of a known data set, in the memory of one."""
    known = KNOWN[config.data]
    height, _, width = known.size.partition(" x ")
    held_out = config.validation if config.validation >= 1 else config.validation * known.train

    def images(count: int) -> ImageSet:
        pixels = torch.zeros(1, known.channels, int(height), int(width), dtype=torch.uint8)
        return ImageSet(pixels.expand(count, -1, -1, -1), torch.zeros(1, dtype=torch.int64).expand(count))

    return Dataset(
        config.data,
        images(known.train - int(held_out)),
        images(int(held_out)),
        images(known.test),
        tuple(map(str, range(known.classes))),
        known.mean or (0.0,) * known.channels,
        known.std or (1.0,) * known.channels,
        Augmentation(),
        config.data,
        "",
    )

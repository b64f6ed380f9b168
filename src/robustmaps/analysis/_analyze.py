"""The analysis of a network: a traced pass, a watched pass with gradients, and projected gradient descent."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustmaps.analysis._analysis import Analysis, MarginGain, StageReport
from robustmaps.analysis._comparison import ComparedAnalyses
from robustmaps.analysis._gain import check_norm
from robustmaps.analysis._probe import StageProbe, gain_of
from robustmaps.analysis._receptive import effective_field_px
from robustmaps.analysis._stage_costs import maps_of, shares
from robustmaps.analysis._stages import Stage, find_stages
from robustmaps.attacks import check_batch
from robustmaps.engine.modes import check_values, no_shortcuts
from robustmaps.engine.numbers import check_eps, check_whole
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.view import plain_view
from robustmaps.models import measure_cost
from robustmaps.tracing import find_head, trace

# A quarter of a GiB of activations per batch: enough to keep a core busy, yet it fits on a laptop.
_BATCH_BYTES = 2**28


def analyze(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 8 / 255,
    norm: str = "linf",
    steps: int = 20,
    directions: int = 4,
    latency_runs: int = 5,
    seed: int = 0,
    like: Sequence[Stage] = (),
    watcher: Watcher = ignore,
) -> Analysis:
    """Analyse a network's maps: their sizes, receptive fields, costs and perturbation gains.

    >>> from robustmaps import models
    >>> analysis = analyze(models.create("resnet8"), torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), steps=2)
    >>> [report.stage.map_size for report in analysis.stages]
    [(32, 32), (16, 16), (8, 8)]

    Args:
        model: any classifier of images (N, C, H, W) in [0, 1]; used in evaluation mode and restored afterwards.
        x: the images for gains and effective receptive fields.
        y: their labels (N,).
        eps: the budget's radius, in units of images in [0, 1].
        norm: ``linf`` or ``l2``.
        steps: steps of projected gradient descent; 0 skips it, which saves most of the time.
        directions: number of random unit vectors along which pooled features are measured.
        latency_runs: passes to time; 0 for none.
        seed: seed of the directions.
        like: stages of the original network, to analyse an enlarged one at the same places.
        watcher: receives progress reports.

    Raises:
        InputError: images, labels or budget are invalid, or the network's maps can't be found.
    """
    check_batch(x, y)
    check_norm(norm)
    check_eps(eps, norm)
    check_whole("steps", steps, 0)
    check_whole("directions", directions, 1)
    check_values(model)
    with no_shortcuts():
        recorded = trace(model, x[:1])
        stages = find_stages(recorded, like, model=model)
        costs = shares(model, x[:1], stages, runs=latency_runs)
        cost = measure_cost(model, x[:1], latency_runs=latency_runs)
    head = find_head(recorded)
    largest = [head is not None and head.kind == "max" and stage is stages[-1] for stage in stages]
    probe = StageProbe(model, stages, largest, eps, norm, directions, seed)
    rows = max(1, min(len(x), _BATCH_BYTES // max(1, cost.activation_bytes)))
    parts = []
    with plain_view(model), no_shortcuts():
        for begin in range(0, len(x), rows):
            parts.append(probe.measure(x[begin : begin + rows], y[begin : begin + rows], steps))
            watcher(Progress("perturbation gain", min(begin + rows, len(x)), len(x), "images"))
    return Analysis(
        network=type(model).__name__,
        image_size=(x.shape[2], x.shape[3]),
        images=len(x),
        eps=eps,
        norm=norm,
        steps=steps,
        cost=replace(cost, map_size=stages[-1].map_size),
        stages=tuple(
            StageReport(
                stage,
                effective_field_px(torch.stack([part.energy[number] for part in parts]).sum(0)),
                costs[number],
                gain_of(parts, number),
            )
            for number, stage in enumerate(stages)
        ),
        rest=costs[-1],
        margin=MarginGain(
            margin=tuple(torch.cat([-part.wrong for part in parts]).tolist()),
            first_order=tuple(torch.cat([part.margin_gain for part in parts]).tolist()),
            reached=tuple(torch.cat([part.margin_reached for part in parts]).tolist()) if steps else None,
        ),
    )


def analyze_both(before: nn.Module, after: nn.Module, x: Tensor, y: Tensor, **options: object) -> ComparedAnalyses:
    """Analyse a network before and after enlargement, on the same images at the same places.

    Args:
        before: the original network.
        after: an enlarged copy.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        options: options of `analyze`.
    """
    first = analyze(before, x, y, **options)  # type: ignore[arg-type]
    like = [report.stage for report in first.stages]
    return ComparedAnalyses(first, analyze(after, x, y, **{**options, "like": like}))  # type: ignore[arg-type]


def feature_maps(model: nn.Module, x: Tensor, stages: Sequence[Stage]) -> list[Tensor]:
    """The last map (N, C, h, w) of each stage, for images (N, C, H, W).

    Args:
        model: the network; used in evaluation mode and restored afterwards.
        x: images.
        stages: stages from an analysis of the same network.
    """
    with plain_view(model), no_shortcuts(), torch.no_grad():
        return maps_of(model, x, stages, lambda _, taken: taken.clone())[0]

"""Enlargements of a network that stay within a budget, as configurations to train."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from robustmaps import models
from robustmaps.config import ModelConfig, RunConfig
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least
from robustmaps.enlarging import Option, plan
from robustmaps.models import Cost
from robustmaps.networks import Budgeted, ResolvedRun, Resolver, create_network, image_cost

_LATENCY_RUNS = 5


@dataclass(frozen=True)
class Candidate:
    """A configuration and what its network costs.

    Attributes:
        config: what would be trained.
        cost: for one image.
        relative: the cost that the budget is about, relative to the given network.
    """

    config: RunConfig
    cost: Cost
    relative: float

    @property
    def title(self) -> str:
        """Network, strides, upsampling and surgery."""
        model = self.config.model
        parts = [model.model, model.strides, f"x{model.upsample:g}" if model.upsample != 1 else None, model.enlarge]
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "title": self.title,
            "run": self.config.name,
            "cost": self.cost.to_dict(),
            "relative": self.relative,
        }


def find_candidates(
    base: RunConfig,
    data: Dataset,
    *,
    budget: float,
    measure: Budgeted = "flops",
    upsamples: Sequence[float] = (1.0, 2.0),
    resolver: Resolver | None = None,
) -> list[Candidate]:
    """The given network, then its enlargements within the budget, the cheapest first.

    Args:
        base: the configuration of the given network; its other keys are those of every candidate.
        data: the images.
        budget: how many times the given network's cost may be spent.
        measure: what the budget limits.
        upsamples: factors to try.
        resolver: what completed the configuration, so that no weights are opened twice.

    Raises:
        InputError: a bad budget, or a configuration that can't be trained.
    """
    resolver = resolver or Resolver()
    run = resolver.resolve(base)
    model = create_network(run, data).model
    device = "cpu" if measure == "latency" else "meta"
    image = torch.zeros(1, data.in_channels, *data.image_size, device=device)
    found = plan(model.to(device), image, budget=budget, measure=measure, upsamples=tuple(upsamples))
    given = run.config
    configs = [replace(given, model=_changed(given.model, option)) for option in found.options]
    return within([given, *configs], data, budget=budget, measure=measure, resolver=resolver)


def _changed(base: ModelConfig, option: Option) -> ModelConfig:
    """The network with an enlargement: by its strides where it is an untrained one of ours, else by surgery.

    Raises:
        InputError: it is enlarged by surgery already.
    """
    if ":" not in base.model and base.init_from is None and base.enlarge is None:
        own = models.parse_strides(base.model, base.strides)
        steps = [index for index, stride in enumerate(own) if stride > 1]
        strides = list(own)
        for step in option.where:
            strides[steps[step]] //= 2
        return replace(base, strides=str(models.Strides(strides)), upsample=base.upsample * option.upsample)
    if base.enlarge is not None:
        raise InputError(f"enlarge={base.enlarge}: the search chooses the enlargement itself; leave enlarge out")
    parts = [f"upsample={option.upsample:g}"] * (option.upsample != 1) + [str(step) for step in option.where]
    return replace(base, enlarge=",".join(parts) or None)


def within(
    configs: Sequence[RunConfig],
    data: Dataset,
    *,
    budget: float | None,
    measure: Budgeted = "flops",
    resolver: Resolver | None = None,
) -> list[Candidate]:
    """Configurations with their costs relative to the first, which comes first; those above the budget are left out.

    Raises:
        InputError: a budget below 1.
    """
    if budget is not None:
        check_at_least("budget", budget, 1)
    resolver = resolver or Resolver()
    runs = {run.config: run for run in map(resolver.resolve, configs)}
    costs = {config: _cost(run, data, measure) for config, run in runs.items()}
    spent = {config: _spent(cost, measure) for config, cost in costs.items()}
    first = next(iter(costs))
    candidates = [Candidate(config, cost, spent[config] / spent[first]) for config, cost in costs.items()]
    others = sorted(candidates[1:], key=lambda one: one.relative)
    kept = [candidates[0], *(one for one in others if budget is None or one.relative <= budget)]
    if len(kept) < 2:
        limit = "" if budget is None else f"budget={budget:g}: "
        raise InputError(f"{limit}leaves only the given network; expected several candidates")
    return kept


def _cost(run: ResolvedRun, data: Dataset, measure: Budgeted) -> Cost:
    model = create_network(run, data).model
    if measure != "latency":
        return image_cost(model, data)
    return models.measure_cost(model, torch.zeros(1, data.in_channels, *data.image_size), latency_runs=_LATENCY_RUNS)


def _spent(cost: Cost, measure: Budgeted) -> float:
    return {"flops": cost.flops, "memory": cost.activation_bytes, "latency": cost.latency_s or 0.0}[measure]

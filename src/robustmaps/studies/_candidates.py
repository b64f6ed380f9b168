"""Enlargements of a network within a budget, as configurations to train."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from robustmaps import models
from robustmaps.config import ModelConfig, RunConfig, Surgery, last_epochs
from robustmaps.data import Dataset
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import check_at_least
from robustmaps.enlarging import Option, plan
from robustmaps.models import SMOOTHED, Cost, Measure, Smooth
from robustmaps.networks import (
    ResolvedRun,
    Resolver,
    create_earlier,
    create_network,
    enlargement_text,
    image_cost,
    mean_over_epochs,
    name_network,
    same_networks,
)

_LATENCY_RUNS = 5
_LATE = ("0.8", "0.5,0.8")
_UNENLARGED: dict[str, Any] = {
    name: getattr(ModelConfig, name) for name in ("strides", "upsample", "upsample_mode", "enlarge")
}


@dataclass(frozen=True)
class Candidate:
    """A configuration and the cost of its network.

    Attributes:
        config: the configuration to train.
        cost: the cost for one image.
        relative: the cost that the budget limits, relative to the original network; averaged over its epochs where the
            network is enlarged during training.
        each: the relative cost of each network that is trained, where there are several.
        same: other ways to write this network that were asked for, too, and are left out.
    """

    config: RunConfig
    cost: Cost
    relative: float
    same: tuple[str, ...] = ()
    each: tuple[float, ...] = ()

    def relative_over(self, epochs: int) -> float:
        """The relative cost of an epoch, averaged over so many.

        Raises:
            InputError: there are too few for the networks that follow each other.
        """
        if not self.each:
            return self.relative
        return mean_over_epochs(self.each, last_epochs(self.config.model.enlarge_at, epochs), epochs)

    @property
    def title(self) -> str:
        """The name of the network, with the other ways to write it."""
        return " = ".join([name_network(self.config.model), *self.same])

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
    measure: Measure = "flops",
    upsamples: Sequence[float] = (1.0, 2.0),
    resolver: Resolver | None = None,
) -> list[Candidate]:
    """The original network, then its enlargements within the budget, cheapest first.

    Args:
        base: the configuration of the original network; every candidate shares its other keys.
        data: the images.
        budget: the largest cost, as a multiple of the original network's.
        measure: the cost that the budget limits.
        upsamples: factors to try.
        resolver: the resolver that completed the configuration, so that no weights are opened twice.

    Raises:
        InputError: the budget is invalid, or the configuration can't be trained.
    """
    resolver = resolver or Resolver()
    run = resolver.resolve(base)
    configs = [run.config, *enlarged(run, data, budget, measure, upsamples)]
    return within(configs, data, budget=budget, measure=measure, resolver=resolver)


def enlarged(
    run: ResolvedRun, data: Dataset, budget: float, measure: Measure, upsamples: Sequence[float]
) -> list[RunConfig]:
    """The configurations of the network's enlargements within the budget; see `find_candidates`."""
    options = _options(run, data, budget, measure, upsamples)
    return [replace(run.config, model=_changed(run.config.model, option)) for option in options]


def smoothed(run: ResolvedRun, data: Dataset, budget: float) -> list[RunConfig]:
    """The network with averages, and with blurs, in place of as many strides as its operations may pay for."""
    found = []
    for how in SMOOTHED:
        most = max(_options(run, data, budget, "flops", (1.0,), how), key=lambda option: len(option.where))
        if most.where:
            surgery = Surgery(where=",".join(map(str, most.where)), smooth=how)
            found.append(replace(run.config, model=replace(run.config.model, enlarge=str(surgery))))
    return found


def reshaped(run: ResolvedRun, upsamples: Sequence[float]) -> list[RunConfig]:
    """The network with twice the channels; fewer of them and larger images; fewer late ones and a larger late map.

    The last is the redistribution of arXiv 2212.11005: the last group has half the channels, on a map of stride 1 in
    the place of its stride. None for networks whose widths can't be chosen, or that begin with weights.
    """
    model = run.config.model
    if ":" in model.model or model.begins_with_weights or model.enlarge is not None:
        return []
    groups = models.architecture(model.model).groups
    if not groups:
        return []
    strides = models.parse_strides(model.model, model.strides)
    shapes: list[tuple[list[float], dict[str, Any]]] = [
        ([2.0] * groups, {}),
        *(([1 / factor] * groups, {"upsample": factor * model.upsample}) for factor in upsamples if factor != 1),
    ]
    if strides[-1] > 1 and len(strides) == groups:
        larger = models.Strides((*strides[:-1], 1))
        shapes.append(([*[1.0] * (groups - 1), 0.5], {"strides": str(larger)}))
    found = []
    for factors, more in shapes:
        with suppress(InputError), torch.device("meta"):  # such as no whole number of channels
            name = models.widened(model.model, factors)
            models.create(name)
            found.append(replace(run.config, model=replace(model, model=name, **more)))
    return found


def enlarged_late(run: ResolvedRun, upsamples: Sequence[float]) -> list[RunConfig]:
    """The network with its images upsampled late in training, and step by step."""
    model = run.config.model
    if model.enlarge is not None or model.upsample != 1 or _other_strides(model):
        return []
    larger = [replace(model, upsample=factor) for factor in upsamples if factor != 1]
    late = [replace(one, enlarge_at=shares) for one in larger for shares in _LATE]
    return [replace(run.config, model=one) for one in late]


def _other_strides(model: ModelConfig) -> bool:
    """Whether strides are chosen: enlarged late, training would begin with the usual ones."""
    return model.strides is not None and model.strides != str(models.parse_strides(model.model, None))


def _options(
    run: ResolvedRun,
    data: Dataset,
    budget: float,
    measure: Measure,
    upsamples: Sequence[float],
    smooth: Smooth | None = None,
) -> tuple[Option, ...]:
    model = create_network(run, data).model
    device = "cpu" if measure == "latency" else "meta"
    image = torch.zeros(1, data.in_channels, *data.image_size, device=device)
    how: dict[str, Any] = {"budget": budget, "measure": measure, "upsamples": tuple(upsamples), "smooth": smooth}
    return plan(model.to(device), image, **how).options


def _changed(base: ModelConfig, option: Option) -> ModelConfig:
    """The configuration with an enlargement: by strides for an untrained built-in network, else by surgery.

    Raises:
        InputError: the network is already enlarged by surgery.
    """
    if ":" not in base.model and not base.begins_with_weights and base.enlarge is None:
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
    measure: Measure = "flops",
    resolver: Resolver | None = None,
) -> list[Candidate]:
    """The configurations within the budget, with costs relative to the first, which stays first.

    Raises:
        InputError: the budget is below 1, or leaves fewer than two configurations.
    """
    if budget is not None:
        check_at_least("budget", budget, 1)
    resolver = resolver or Resolver()
    runs = {run.config: run for run in map(resolver.resolve, configs)}
    costs = {config: _cost(run, data, measure) for config, run in runs.items()}
    first = next(iter(costs))
    whole = costs[first].of(measure)
    each = {config: _each(run, costs[config], data, measure, whole) for config, run in runs.items()}
    spent = {config: mean_cost(config, each[config]) for config in costs}
    twins = same_enlargements(list(runs.values()), {config: cost.flops for config, cost in costs.items()}, data)
    double = {other for others in twins.values() for other in others}
    candidates = [
        Candidate(
            config,
            cost,
            spent[config],
            tuple(enlargement_text(other.model) for other in twins.get(config, ())),
            each[config] if len(each[config]) > 1 else (),
        )
        for config, cost in costs.items()
        if config not in double
    ]
    others = sorted(candidates[1:], key=lambda one: one.relative)
    kept = [candidates[0], *(one for one in others if budget is None or one.relative <= budget)]
    if len(kept) < 2:
        limit = "" if budget is None else f"budget={budget:g}: "
        raise InputError(f"{limit}leaves only the original network; expected several candidates")
    return kept


def same_enlargements(
    runs: Sequence[ResolvedRun], flops: Mapping[RunConfig, int], data: Dataset
) -> dict[RunConfig, list[RunConfig]]:
    """Configurations that give the same network as an earlier one and differ from it in the enlargement alone.

    Args:
        runs: the runs.
        flops: operations of a forward pass of each one's network.
        data: their images.
    """
    alike: dict[tuple[RunConfig, int], list[ResolvedRun]] = {}
    for run in runs:
        plain = replace(run.config, model=replace(run.config.model, **_UNENLARGED))
        alike.setdefault((plain, flops[run.config]), []).append(run)
    groups = [group for each in alike.values() if len(each) > 1 for group in same_networks(each, data)]
    return {group[0].config: [run.config for run in group[1:]] for group in groups if len(group) > 1}


def _each(run: ResolvedRun, cost: Cost, data: Dataset, measure: Measure, whole: float) -> tuple[float, ...]:
    """The cost of each network that a run trains, relative to that of the original one."""
    before = [_measured(one.model, data, measure).of(measure) for one in create_earlier(run, data)]
    return tuple(value / whole for value in (*before, cost.of(measure)))


def mean_cost(config: RunConfig, each: Sequence[float]) -> float:
    """The mean over the epochs of a run, of the cost of each network that it trains."""
    epochs = config.training.epochs
    return mean_over_epochs(each, last_epochs(config.model.enlarge_at, epochs), epochs)


def _cost(run: ResolvedRun, data: Dataset, measure: Measure) -> Cost:
    return _measured(create_network(run, data).model, data, measure)


def _measured(model: nn.Module, data: Dataset, measure: Measure) -> Cost:
    if measure != "latency":
        return image_cost(model, data)
    return models.measure_cost(model, torch.zeros(1, data.in_channels, *data.image_size), latency_runs=_LATENCY_RUNS)

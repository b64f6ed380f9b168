"""Train a configuration in a run folder."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from robustmaps.config import RunConfig, departures, read_mapping, write_run_config
from robustmaps.data import Dataset
from robustmaps.engine import ranks
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import remove, write_json
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.models import Cost
from robustmaps.networks import (
    DESCRIPTION,
    OpenedNetwork,
    ResolvedRun,
    create_earlier,
    create_network,
    keep_program,
    load_data,
    resolve,
    trained_cost,
    weights_file,
)
from robustmaps.runs._defenses import create_defense
from robustmaps.training import FitResult, Forms, RunFolder, check_earlier, fit


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        folder: the run folder.
        config: the complete configuration.
        model: the network, with its best weights.
        data: the data set.
        fit: history and best epoch.
        cost: the network's cost for one image.
        needs_code: why the run of somebody's own function opens only with that function; None if it opens without.
    """

    folder: Path
    config: RunConfig
    model: nn.Module
    data: Dataset
    fit: FitResult
    cost: Cost
    needs_code: str | None = None


def folder_of(config: RunConfig, out: str | Path) -> Path:
    """The folder of the configuration's run below ``out``."""
    return Path(out) / resolve(config).config.name


def train(
    config: RunConfig | ResolvedRun,
    out: str | Path = "runs",
    *,
    resume: bool = False,
    data: Dataset | None = None,
    watcher: Watcher = ignore,
    should_stop: Callable[[], bool] = lambda: False,
    forms: Forms | None = None,
) -> TrainedRun:
    """Train a configuration in its own folder below ``out``.

    Args:
        config: the configuration, resolved or not.
        out: the folder of the runs.
        resume: resume this configuration's run where it stopped, or start it.
        data: the data set, if already loaded.
        watcher: receives progress reports.
        should_stop: called after each step; if True, saves a checkpoint and raises `training.Interrupted`.
        forms: how to compute, instead of choosing by the configuration; see `training.fit`.

    Raises:
        InputError: the configuration is invalid, or the run exists and ``resume`` is False.
        training.Interrupted: ``should_stop`` returned True.
        training.Diverged: the loss became NaN or infinite.
    """
    run = config if isinstance(config, ResolvedRun) else resolve(config)
    config = run.config
    config.training.check()
    folder = RunFolder(Path(out) / config.name)
    if folder.begun and not resume:
        raise InputError(
            f"{folder.path} already contains this run; continue it with --resume, or choose another --out or --seed"
        )
    folder.claim()
    defense = create_defense(config.defense, run.helper)
    data = data or load_data(config.data, watcher)
    if run.helper is not None:
        _check_helper(str(config.defense.helper), run.helper, data)
    network, earlier = create_network(run, data), create_earlier(run, data)
    check_earlier(network.model, earlier, config.training.epochs)
    if not folder.config.exists():
        write_run_config(folder.config, config)
        for line in departures(config):
            folder.log(line)
    remove(folder.error)
    cost = trained_cost(network.model, data, earlier, config.training.epochs)
    if not folder.cost.exists():
        write_json(folder.cost, cost.to_dict())
    result = fit(
        network.model,
        data,
        defense,
        config.training,
        out=folder.path,
        resume=resume,
        description={DESCRIPTION: json.dumps(_description(config, network, data))},
        watcher=watcher,
        should_stop=should_stop,
        forms=forms,
        earlier=earlier,
    )
    needs_code = _keep_program(folder, network, data)
    return TrainedRun(folder.path, config, network.model, data, result, cost, needs_code)


def _keep_program(folder: RunFolder, network: OpenedNetwork, data: Dataset) -> str | None:
    """Write what somebody's own network computes beside its weights; why that is not possible, or None."""
    if folder.program.exists() or not ranks.is_main():
        return None
    shape = (data.in_channels, *data.image_size)
    why = keep_program(folder.program, network.model, shape, network.recipe.spec)
    if why is None:
        return None
    folder.log(f"this run {why}")
    return f"this run {why}"


def _check_helper(path: str, helper: OpenedNetwork, data: Dataset) -> None:
    """Refuse a helper trained on other images: it would silently give wrong results on these."""
    run = RunFolder(weights_file(path).parent).config
    if run.exists() and (defense := read_mapping(run).get("defense")) not in (None, "standard"):
        warnings.warn(
            f"helper={path}: was trained with --defense {defense}; hat expects a helper trained with standard",
            stacklevel=3,
        )
    ours = (tuple(data.classes), tuple(data.image_size))
    theirs = (helper.classes or ours[0], helper.image_size or ours[1])
    if theirs != ours:
        raise InputError(
            f"helper={path}: was trained on images of {_shape(theirs)}, but these are of "
            f"{_shape(ours)}; train a helper on the same images"
        )


def _shape(about: tuple[Sequence[str], Sequence[int]]) -> str:
    classes, size = about
    return f"{' x '.join(map(str, size))} pixels in {len(classes)} classes ({', '.join(classes[:3])}, ...)"


def _description(config: RunConfig, network: OpenedNetwork, data: Dataset) -> dict[str, object]:
    """The description saved with a run's weights, so that they can be used without their folder."""
    trained = replace(
        network, trained=True, data=config.data, budget=(str(config.defense.norm), float(config.defense.eps))
    )
    return {**trained.describe(), "classes": list(data.classes), "image_size": list(data.image_size)}

"""The network that training starts with: named, perhaps with weights of another run, perhaps enlarged."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustmaps import models
from robustmaps.config import (
    DefenseConfig,
    ModelConfig,
    RunConfig,
    Surgery,
    earlier_models,
    from_mapping,
    images_needed,
    last_epochs,
    parse_shares,
    parse_surgery,
    plain,
)
from robustmaps.data import Dataset
from robustmaps.engine.calling import network_logits
from robustmaps.engine.errors import InputError
from robustmaps.engine.text import first_line
from robustmaps.evaluation import weights_sha256
from robustmaps.networks._checkpoints import file_digest, parted
from robustmaps.networks._libraries import Fit, check_name
from robustmaps.networks._open_model import open_model
from robustmaps.networks._opened import OpenedNetwork, found_anywhere
from robustmaps.networks._takes import check_strides, check_takes
from robustmaps.networks._weights import open_weights
from robustmaps.training import RUN_WEIGHTS, Earlier


@dataclass(frozen=True)
class ResolvedRun:
    """A run as it will be made, with what had to be opened to know that.

    Attributes:
        config: the configuration with everything filled in that decides the network, so that one run has one name.
        start: the network whose weights it begins with, None where it begins with random ones.
        helper: the network that its defence consults, None where there is none.
    """

    config: RunConfig
    start: OpenedNetwork | None = None
    helper: OpenedNetwork | None = None


class Resolver:
    """Completes and resolves configurations, and opens each set of weights once, however many runs name it."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str | None], OpenedNetwork] = {}

    def starting_from(
        self, start: str, base: RunConfig | None = None, *, weights: str | None = None, data_named: bool = True
    ) -> RunConfig:
        """The configuration of a run that goes on from weights: their network, their images, the budget they met.

        Args:
            start: what `open_model` takes and finds weights for, or the name of a network whose weights are in a file.
            base: everything else.
            weights: that file; of a run, one of `training.RUN_WEIGHTS`.
            data_named: whether somebody named the images; else they have to be known, or the network one of ours.

        Raises:
            InputError: they can't be opened, or no images are named and none are known.
        """
        base = base or RunConfig()
        if _is_named(start, weights):
            if not data_named and ":" in start:
                raise images_needed(start)
            return replace(base, model=_named(replace(base.model, model=start, weights=weights)))
        opened = self._open(start, weights)
        if not data_named and opened.data is None and ":" in opened.recipe.spec:
            raise images_needed(start)
        model = _held(ModelConfig(model=opened.recipe.spec, init_from=start, weights=weights), opened)
        budget = {} if opened.budget is None else dict(zip(("norm", "eps"), opened.budget, strict=True))
        return from_mapping(budget, replace(base, model=model, data=opened.data or base.data), start)

    def complete(
        self, values: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration"
    ) -> RunConfig:
        """As `config.from_mapping`; where ``init_from`` is given, network, images and budget are those of its weights.

        Raises:
            InputError: as `config.from_mapping` and `starting_from`.
        """
        start = values.get("init_from", values.get("init-from"))
        given_already = base is not None and base.model.init_from is not None
        if isinstance(start, str) and not given_already and "init_sha256" not in values:
            weights = values.get("weights")
            named = None if weights is None else str(weights)
            base = self.starting_from(start, base, weights=named, data_named="data" in values)
            if base.model.init_from is None:  # the name of a network, with a file of weights
                values = {key: value for key, value in values.items() if key not in ("init_from", "init-from")}
        return from_mapping(values, base, where)

    def resolve(self, config: RunConfig) -> ResolvedRun:
        """The run of a configuration, with everything filled in.

        Raises:
            InputError: an unknown network, or strides or weights that don't fit it; or other weights than a run began
                with.
        """
        model, start = config.model, None
        if model.enlarge is not None:
            model = replace(model, enlarge=str(parse_surgery(model.enlarge)))
        if model.init_from is not None and _is_named(model.init_from, model.weights):
            model = replace(model, model=model.init_from, init_from=None)
        if model.init_from is not None:
            start = self._open(model.init_from, model.weights)
            model = _held(replace(model, init_from=found_anywhere(model.init_from)), start)
        elif model.weights is not None:
            path, key = parted(model.weights)
            digest = file_digest(model.weights)
            _same_weights(model.weights, digest, model.init_sha256)
            weights = found_anywhere(str(path)) + ("" if key is None else f"#{key}")
            model = replace(_named(model), weights=weights, init_sha256=digest)
        elif model.init_sha256 is not None:
            raise InputError(f"init_sha256={model.init_sha256}: needs init_from, the weights whose hash it is")
        else:
            model = _named(model)
        model = _growing(model, config.training.epochs)
        defense, helper = config.defense, None
        if defense.helper is not None:
            helper = self._open(defense.helper, RUN_WEIGHTS[0])
            defense = _with_helper(defense, helper)
        return ResolvedRun(replace(config, model=model, defense=defense), start, helper)

    def _open(self, spec: str, weights: str | None = None) -> OpenedNetwork:
        """What `open_model` opens; with one of `training.RUN_WEIGHTS`, nothing but a run or a file."""
        which = RUN_WEIGHTS[0] if weights is None and Path(spec).exists() else weights
        key = (found_anywhere(spec), which)
        if key not in self._opened:
            self._opened[key] = open_model(spec) if which is None else open_weights(spec, which)[0]
        return self._opened[key]


def starting_from(start: str, base: RunConfig | None = None, *, weights: str | None = None) -> RunConfig:
    """As `Resolver.starting_from`, for one configuration."""
    return Resolver().starting_from(start, base, weights=weights)


def complete(values: Mapping[str, Any], base: RunConfig | None = None, where: str = "configuration") -> RunConfig:
    """As `Resolver.complete`, for one configuration."""
    return Resolver().complete(values, base, where)


def resolve(config: RunConfig) -> ResolvedRun:
    """As `Resolver.resolve`, for one configuration."""
    return Resolver().resolve(config)


def _with_helper(defense: DefenseConfig, helper: OpenedNetwork) -> DefenseConfig:
    where = str(defense.helper)
    digest = weights_sha256(helper.model)
    _same_weights(where, digest, defense.helper_sha256)
    return replace(defense, helper=found_anywhere(where), helper_sha256=digest)


def _same_weights(where: str, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise InputError(
            f"{where}: its weights have the hash {found[:12]}, those that this run began with had {expected}; "
            "expected the same weights"
        )


def create_network(run: ResolvedRun, data: Dataset) -> OpenedNetwork:
    """The network before training, a new one at each call.

    What is random is drawn from the run's seed; PyTorch's state is left as it was.

    Raises:
        InputError: it can't be had, can't be enlarged as asked, or does not fit the images.
    """
    model = run.config.model
    if run.start is None and ":" not in model.model:
        check_strides(model.model, model.strides, data.image_size, data.name, model.upsample)
    if run.start is not None:
        opened = replace(run.start, model=copy.deepcopy(run.start.model))
    else:
        fit = Fit.to_data(data, strides=model.strides, pool=model.pool, seed=run.config.training.seed)
        ours = replace(fit, upsample=model.upsample, upsample_mode=model.upsample_mode, init=model.init)
        opened = open_model(model.model, ours, model.weights)
        if opened.filled is not None:
            _same_weights(str(model.weights), opened.filled.sha256, model.init_sha256)
    if model.enlarge is not None:
        check_takes(opened.model, opened.recipe.spec, data)
        opened = opened.enlarged(parse_surgery(model.enlarge), data.image_size)
    _check_fit(opened, torch.zeros(1, data.in_channels, *data.image_size), data)
    return opened


def _growing(model: ModelConfig, epochs: int) -> ModelConfig:
    """With the time of its enlargement as written, and without it where nothing is enlarged.

    Raises:
        InputError: the epochs can't be shared that way, or more than upsampling would happen step by step.
    """
    if model.enlarge_at is None or plain(model) == replace(model, enlarge_at=None):
        return replace(model, enlarge_at=None)  # one network, one configuration
    last_epochs(model.enlarge_at, epochs)
    earlier_models(model)
    return replace(model, enlarge_at=",".join(f"{share:g}" for share in parse_shares(model.enlarge_at)))


def create_earlier(run: ResolvedRun, data: Dataset) -> tuple[Earlier, ...]:
    """The networks that are trained before that of `create_network`, with the same weights; none for most runs.

    Raises:
        InputError: as `create_network`.
    """
    config = run.config
    until = last_epochs(config.model.enlarge_at, config.training.epochs)
    configs = (replace(config, model=model) for model in earlier_models(config.model))
    made = (create_network(replace(run, config=one), data).model for one in configs)
    return tuple(Earlier(model, last) for model, last in zip(made, until, strict=True))


def _is_named(start: str, weights: str | None) -> bool:
    """Whether this is the name of a network whose weights are in a file of their own."""
    return weights is not None and (":" in start or "/" not in start) and not Path(start).exists()


def _named(model: ModelConfig) -> ModelConfig:
    """A network without weights of another run, with its own strides written out."""
    name = model.model
    check_name(name)
    if Path(name).exists():
        raise InputError(f"model={name}: these are weights; begin with them through init_from (--init-from {name})")
    if ":" not in name:
        # One network, one configuration: nothing is interpolated without upsampling, and avg is what all have.
        mode = ModelConfig.upsample_mode if model.upsample == 1 else model.upsample_mode
        strides, pool = str(models.parse_strides(name, model.strides)), _unless_usual(model.pool)
        return replace(model, strides=strides, upsample_mode=mode, pool=pool)
    if model.strides is not None or model.pool is not None:
        raise InputError(
            f"model={name}: strides and pool are for built-in networks; for the maps of others "
            "expected enlarge, such as upsample=2 or last"
        )
    return _upsampled_by_surgery(model)


def _upsampled_by_surgery(model: ModelConfig) -> ModelConfig:
    """With the upsampling as a part of the enlargement, where the network itself has none.

    Raises:
        InputError: the enlargement upsamples, too.
    """
    if model.upsample == 1:
        return model
    given = Surgery() if model.enlarge is None else parse_surgery(model.enlarge)
    if given.upsample != 1:
        raise InputError(f"upsample={model.upsample:g}: enlarge={model.enlarge} upsamples, too; give one of the two")
    surgery = replace(given, upsample=model.upsample, upsample_mode=model.upsample_mode)
    usual = ModelConfig.upsample, ModelConfig.upsample_mode
    return replace(model, enlarge=str(surgery), upsample=usual[0], upsample_mode=usual[1])


def _unless_usual(pool: models.Pool | None) -> models.Pool | None:
    return None if pool == "avg" else pool


def _held(model: ModelConfig, opened: OpenedNetwork) -> ModelConfig:
    """What the weights in ``init_from`` decide, written out.

    Raises:
        InputError: something else is asked for, or the weights are not those that a run began with.
    """
    fit, ours = opened.fit, ":" not in opened.recipe.spec
    if fit.upsample == 1:
        model = _upsampled_by_surgery(model)
    strides = str(models.parse_strides(opened.recipe.spec, fit.strides)) if ours else None
    held = {"model": opened.recipe.spec, "upsample": fit.upsample, "upsample_mode": fit.upsample_mode}
    if model.strides is not None:
        held["strides"] = strides
    if model.pool is not None:
        held["pool"] = (fit.pool or "avg") if ours else None
    for key, value in held.items():
        if getattr(model, key) != value and (key == "model" or getattr(model, key) != getattr(ModelConfig, key)):
            raise InputError(
                f"{key}={getattr(model, key)}: {model.init_from} contains a network with {key}={value}; leave {key} "
                "out, and change it with enlarge"
            )
    digest = weights_sha256(opened.model)
    _same_weights(str(model.init_from), digest, model.init_sha256)
    return replace(
        model,
        strides=strides,
        upsample=fit.upsample,
        upsample_mode=fit.upsample_mode,
        pool=_unless_usual(fit.pool),
        init_sha256=digest,
    )


@torch.no_grad()
def _check_fit(opened: OpenedNetwork, image: torch.Tensor, data: Dataset) -> None:
    try:
        given = network_logits(opened.model, image)
    except Exception as error:  # whatever a network of somebody else raises
        check_takes(opened.model, opened.recipe.spec, data)
        raise InputError(
            f"{opened.recipe.spec} can't take images of {tuple(image.shape[1:])} from {data.name}: {first_line(error)}"
        ) from error
    if given.ndim != 2 or given.shape[1] < data.num_classes:
        raise InputError(
            f"{opened.recipe.spec} gives {tuple(given.shape)} for an image of {data.name}, expected logits of at "
            f"least {data.num_classes} classes"
        )

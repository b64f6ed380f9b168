"""What a run's options are where the command line is silent: a recipe, its network and weights, a file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustmaps.config import RunConfig, check_images_named, from_mapping, read_config, read_mapping
from robustmaps.engine.errors import InputError

if TYPE_CHECKING:
    from robustmaps.networks import Resolver


@dataclass(frozen=True)
class Begun:
    """A configuration to begin with, and what has opened weights for it.

    Attributes:
        run: the configuration.
        opener: None where nothing was opened yet.
    """

    run: RunConfig
    opener: "Resolver | None" = None

    def resolver(self) -> "Resolver":
        """What resolves the finished configuration, without opening the same weights again."""
        from robustmaps.networks import Resolver

        return self.opener or Resolver()


@dataclass(frozen=True)
class Sources:
    """The options that decide what the others are by default.

    Attributes:
        config: a YAML file of flat keys.
        recipe: the name of a recipe.
        init_from: the weights to begin with.
        weights: which of them, or their file.
        protocol: the protocol of publication.
        data: the images.
    """

    config: Path | None = None
    recipe: str | None = None
    init_from: str | None = None
    weights: str | None = None
    protocol: str | None = None
    data: str | None = None


def begin(sources: Sources, base: RunConfig, model: str | None = None) -> Begun:
    """The configuration of a recipe, or ``base``, with what weights and the protocol decide, overridden by a file.

    PyTorch is imported only where weights or a file have to be read.

    Args:
        sources: the options.
        base: what holds where nothing is given.
        model: the network that was typed, which overrides all of these; a run or a file is what to begin with.

    Raises:
        InputError: one of these can't be read, or they contradict each other.
    """
    if model is not None and ":" not in model and ("/" in model or Path(model).exists()):
        if sources.init_from is not None:
            raise InputError(f"--init-from {sources.init_from}: {model} has weights of its own; give one of the two")
        sources, model = replace(sources, init_from=model), None
    run, opener = base, None
    if sources.recipe is not None:
        run = from_mapping({"recipe": sources.recipe}, run, "--recipe")
    if sources.init_from is not None or sources.config is not None:
        from robustmaps.networks import Resolver

        opener = Resolver()
        if sources.init_from is not None:
            named = "data" in _keys(sources)
            run = opener.starting_from(sources.init_from, run, weights=sources.weights, data_named=named)
    if sources.protocol is not None:
        run = from_mapping({"protocol": sources.protocol}, run, "--protocol")
    if opener is not None and sources.config is not None:
        run = read_config(sources.config, run, opener.complete)
    if model is not None:
        run = replace(run, model=replace(run.model, model=model))
    return Begun(run, opener)


def check_data_named(run: RunConfig, sources: Sources) -> None:
    """Refuse to train a network that is not ours on the default images, which nobody asked for.

    Raises:
        InputError: no images were named.
    """
    check_images_named(run, _keys(sources))


def _keys(sources: Sources) -> set[str]:
    """The keys of a configuration that were given, in the file or as one of these options."""
    keys = {} if sources.config is None else read_mapping(sources.config)
    given = {str(key).replace("-", "_") for key in keys}
    return given | {key for key, value in vars(sources).items() if value is not None}

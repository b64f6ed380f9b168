"""What a run's options are where the command line is silent: a recipe, the weights it begins with, a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustmaps.config import RunConfig, from_mapping, read_config

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
        protocol: the protocol of publication.
        data: the images.
    """

    config: Path | None = None
    recipe: str | None = None
    init_from: str | None = None
    protocol: str | None = None
    data: str | None = None


def begin(sources: Sources, base: RunConfig) -> Begun:
    """The configuration of a recipe, or ``base``, with what weights and the protocol decide, overridden by a file.

    PyTorch is imported only where weights or a file have to be read.

    Raises:
        InputError: one of these can't be read, or they contradict each other.
    """
    run, opener = base, None
    if sources.recipe is not None:
        run = from_mapping({"recipe": sources.recipe}, run, "--recipe")
    if sources.init_from is not None or sources.config is not None:
        from robustmaps.networks import Resolver

        opener = Resolver()
        if sources.init_from is not None:
            run = opener.starting_from(sources.init_from, run)
    if sources.protocol is not None:
        run = from_mapping({"protocol": sources.protocol}, run, "--protocol")
    if opener is not None and sources.config is not None:
        run = read_config(sources.config, run, opener.complete)
    return Begun(run, opener)

"""What a run's options are where the command line is silent: a recipe, the weights it begins with, a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustmaps.config import RunConfig, read_config, read_recipe

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


def begin(
    config: Path | None, recipe: str | None = None, weights: str | None = None, base: RunConfig | None = None
) -> Begun:
    """The configuration of a recipe, with what its weights decide, overridden by a file.

    PyTorch is imported only where weights or a file have to be read.

    Args:
        config: a YAML file of flat keys.
        recipe: the name of a recipe.
        weights: the weights to begin with.
        base: what holds without any of these.

    Raises:
        InputError: one of these can't be read.
    """
    run = (base or RunConfig()) if recipe is None else read_recipe(recipe)
    if weights is None and config is None:
        return Begun(run)
    from robustmaps.networks import Resolver

    opener = Resolver()
    if weights is not None:
        run = opener.starting_from(weights, run)
    if config is not None:
        run = read_config(config, run, opener.complete)
    return Begun(run, opener)

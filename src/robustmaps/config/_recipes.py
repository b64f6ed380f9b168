"""Configurations that come with the package: the paper's experiments, and small ones for a CPU. No PyTorch here."""

from robustmaps.config._recipe_table import RecipeRow, all_recipes
from robustmaps.config._run import RunConfig, from_mapping
from robustmaps.engine.errors import unknown


def recipe_names() -> tuple[str, ...]:
    """All recipes: ``DEFENSE-NETWORK-VARIANT``, followed by the data set unless it is CIFAR-10."""
    return tuple(all_recipes())


def read_recipe(name: str) -> RunConfig:
    """The configuration of a recipe.

    >>> read_recipe("at-resnet18-1122").model.strides
    '1122'

    Raises:
        InputError: there is none of that name.
    """
    return from_mapping(_recipe(name).values, where=f"recipe {name}")


def describe_recipe(name: str) -> str:
    """What it is, in a sentence.

    Raises:
        InputError: there is none of that name.
    """
    return _recipe(name).description


def _recipe(name: str) -> RecipeRow:
    recipes = all_recipes()
    if name not in recipes:
        raise unknown("recipe", name, recipes)
    return recipes[name]

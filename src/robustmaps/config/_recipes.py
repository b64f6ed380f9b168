"""Configurations that come with the package: the paper's experiments, and small ones for a CPU. No PyTorch here."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from robustmaps.config._flat_keys import parse_mapping
from robustmaps.config._run import RunConfig, from_mapping
from robustmaps.engine.errors import unknown

_FOLDER = "recipes"
_SUFFIX = ".yaml"


def recipe_names() -> tuple[str, ...]:
    """All recipes: ``DEFENSE-NETWORK-VARIANT``, followed by the data set unless it is CIFAR-10."""
    folder = files("robustmaps") / _FOLDER
    return tuple(sorted(item.name.removesuffix(_SUFFIX) for item in folder.iterdir() if item.name.endswith(_SUFFIX)))


def read_recipe(name: str) -> RunConfig:
    """The configuration of a recipe.

    >>> read_recipe("at-resnet18-1122").model.strides
    '1122'

    Raises:
        InputError: there is none of that name.
    """
    where = f"recipe {name}"
    return from_mapping(parse_mapping(_file(name).read_text(encoding="utf-8"), where), where=where)


def describe_recipe(name: str) -> str:
    """Its first line, which says what it is.

    Raises:
        InputError: there is none of that name.
    """
    return _file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _file(name: str) -> Traversable:
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    return files("robustmaps") / _FOLDER / f"{name}{_SUFFIX}"

"""Configurations that come with the package: the paper's experiments, and small ones for a CPU. No PyTorch here."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from robustmaps import defenses
from robustmaps.config._flat_keys import flat_values, to_mapping
from robustmaps.config._origin import check_origin, find_recipe
from robustmaps.config._recipe_table import all_recipes
from robustmaps.config._run import RunConfig, from_mapping
from robustmaps.engine.errors import InputError
from robustmaps.engine.numbers import in_words
from robustmaps.training import INCIDENTAL

_APART = INCIDENTAL | {"seed"}
# Networks of ours that differ from the published ones of that name (VGG with strides above 2), and those that don't.
_PUBLISHED_MODELS = {
    **{f"resnet{depth}": f"resnet{depth}_conv_shortcut" for depth in (8, 20, 32, 44, 56, 110)},
    **{f"vgg{depth}{bn}": f"vgg{depth}{bn}_pool2" for depth in (11, 13, 16, 19) for bn in ("", "_bn")},
}


def recipe_names() -> tuple[str, ...]:
    """All recipes: ``DEFENSE-NETWORK-VARIANT``, after ``ours-`` if ours, and followed by the data set but CIFAR-10."""
    return tuple(all_recipes())


def read_recipe(name: str) -> RunConfig:
    """The configuration of a recipe.

    >>> read_recipe("at-resnet18-1122").model.strides
    '1122'

    Raises:
        InputError: there is none of that name.
    """
    return from_mapping({"recipe": name}, where=f"recipe {name}")


def describe_recipe(name: str) -> str:
    """What it is, in a sentence.

    Raises:
        InputError: there is none of that name.
    """
    return find_recipe(name).description


def in_effect(config: RunConfig) -> dict[str, Any]:
    """The flat values of a run, without those that its defence or its other values leave without effect.

    Raises:
        InputError: an unknown defence, or its module can't be imported.
    """
    defense, flat = config.defense.defense, to_mapping(config)
    kept = {"defense", "defense_parameters", *defenses.find(defense).parameters}
    kept |= {"norm", "eps"} if defenses.is_attacked(defense) else set()
    kept |= {"helper_sha256"} if "helper" in kept else set()
    idle = {item.name for item in fields(config.defense)} - kept
    idle |= {"upsample_mode"} if config.model.upsample == 1 else set()
    idle |= {"extra_share"} if config.data.extra_data is None else set()
    return {key: value for key, value in flat.items() if key not in idle}


def departures(config: RunConfig) -> list[str]:
    """Lines on what a run that begins with a published recipe, or follows the published protocol, has otherwise."""
    return [*_from_recipe(config), *_from_protocol(config)]


def differing(config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The keys of a run that are not as in its published recipe or extension, with its own and the recipe's values."""
    name = config.origin.recipe
    recipe = None if name is None else all_recipes().get(name)
    if recipe is None or recipe.family not in ("published", "extension"):
        return {}
    return dict(_unlike(to_mapping(config), recipe.values))


def _unlike(flat: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    usual = to_mapping(from_mapping(values))
    for key, value in flat.items():
        if key not in _APART and value != usual[key]:
            yield key, (value, usual[key])


def _from_recipe(config: RunConfig) -> Iterator[str]:
    changed, flat = differing(config), to_mapping(config)
    if not changed:
        return
    for name, recipe in all_recipes().items():
        of_program = recipe.family in ("published", "extension") and recipe.values["defense"] == flat["defense"]
        if of_program and not dict(_unlike(flat, recipe.values)):
            yield f"this is the recipe {name}"
            return
    listed = ", ".join(
        f"{key} {in_words(mine)} instead of {in_words(theirs)}" for key, (mine, theirs) in changed.items()
    )
    published = "published " * (find_recipe(str(config.origin.recipe)).family == "published")
    yield f"not the {published}recipe {config.origin.recipe} any more: {listed}"


def _from_protocol(config: RunConfig) -> Iterator[str]:
    if config.origin.protocol is None:
        return
    flat = flat_values(config)
    try:
        check_origin(config.origin, flat)
    except InputError as error:  # only a caller of Python can say so and not do so
        yield str(error)
    model, strides = str(flat["model"]), str(flat["strides"] or "")
    if model in _PUBLISHED_MODELS and (model.startswith("resnet") or set(strides) - set("12")):
        yield f"not the published network of the name {model}: that is {_PUBLISHED_MODELS[model]} here"

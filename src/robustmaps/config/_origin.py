"""Where the values of a configuration come from: a recipe, the protocol of publication. No PyTorch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustmaps.config._recipe_table import PROTOCOL, Recipe, all_recipes
from robustmaps.engine.errors import InputError, unknown

_MEANS = {
    "validation": "trains on all images",
    "augment": "augments as published",
    "init": "begins with weights drawn as published",
    "precision": "computes in float32",
    "ema": "keeps the weights of the last epoch",
    "swa": "keeps the weights of the last epoch",
}


@dataclass(frozen=True)
class OriginConfig:
    """Where the values come from.

    Attributes:
        recipe: name of a recipe, e.g. at-resnet18-1122, see `robustmaps recipes`; options override its values
        protocol: protocol of arXiv 2202.12435: all training images, the last epoch's weights, float32, its augmentation
            and its random weights
    """

    recipe: str | None = None
    protocol: Literal["published"] | None = None


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none; the message has the nearest one.
    """
    recipes = all_recipes()
    if name not in recipes:
        raise unknown("recipe", name, recipes)
    return recipes[name]


def implied(given: Mapping[str, Any], before: OriginConfig, where: str) -> dict[str, Any]:
    """The flat keys that a recipe and a protocol among the given ones stand for; what is given beside them wins.

    Args:
        given: flat keys.
        before: the origin of the values that these change.
        where: for messages.

    Raises:
        InputError: an unknown recipe, or a second one.
    """
    name, protocol = given.get("recipe"), given.get("protocol")
    values: dict[str, Any] = {}
    if isinstance(name, str) and name != before.recipe:
        if before.recipe is not None:
            raise InputError(f"{where}: recipe={name}: the recipe {before.recipe} is given already; leave one out")
        values |= find_recipe(name).values
    elif protocol in (None, before.protocol):
        return {}
    recipe = name or before.recipe
    family = "" if recipe is None else find_recipe(str(recipe)).family
    # A published recipe follows the protocol, but for what its own program does, such as DAJAT's averaged weights.
    if "published" in (protocol, before.protocol) and family not in ("published", "extension"):
        values |= PROTOCOL
    return values


def check_origin(origin: OriginConfig, flat: Mapping[str, Any]) -> None:
    """Refuse values that contradict the recipe or the protocol that they are said to come from.

    Args:
        origin: the recipe and the protocol.
        flat: the values by their flat keys.

    Raises:
        InputError: the defence is another one than the recipe's, or the recipe or a value is not that of the protocol.
    """
    recipe = None if origin.recipe is None else find_recipe(origin.recipe)
    if recipe is not None and recipe.values["defense"] != flat["defense"]:
        raise InputError(
            f"defense={flat['defense']}: the recipe {origin.recipe} is one of {recipe.values['defense']}; "
            f"{_instead(str(origin.recipe), str(recipe.values['defense']), str(flat['defense']))}"
        )
    if origin.protocol is None:
        return
    if recipe is not None and recipe.family == "ours":
        raise InputError(
            f"protocol={origin.protocol}: the recipe {origin.recipe} is ours, with validation images and averaged "
            f"weights; take {str(origin.recipe).removeprefix('ours-')}, or leave the protocol out"
        )
    for key, value in PROTOCOL.items():
        allowed = [value] if recipe is None or recipe.family == "small" else [value, recipe.values[key]]
        drawn = key != "init" or (flat["init_from"] is None and flat["weights"] is None)
        if drawn and flat[key] not in allowed:
            raise InputError(
                f"{key}={flat[key]}: the published protocol {_MEANS[key]} ({key}={value}); leave {key} or the "
                "protocol out"
            )


def _instead(name: str, theirs: str, wanted: str) -> str:
    other = name.replace(f"{theirs}-", f"{wanted}-", 1)
    if other in all_recipes():
        return f"take {other}, or leave defense out"
    return "leave defense out, or the recipe"

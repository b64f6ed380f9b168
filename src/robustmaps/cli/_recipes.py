"""``robustmaps recipes``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.errors import InputError
from robustmaps.engine.tables import table

DESCRIPTION = """List the recipes: the paper's experiments as published, the same values on more networks (extension),
our variants of them (ours), and small ones that a CPU trains in minutes. Train one with robustmaps train --recipe NAME;
options on the command line override it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the list.

    Attributes:
        words: words that a recipe's name and family must all contain, e.g. published at resnet18
        json: print the list as one JSON object, with every key of each recipe
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "recipes", DESCRIPTION)
    from robustmaps.config import find_recipe, read_recipe, recipe_names, to_mapping

    found = {name: find_recipe(name) for name in recipe_names()}
    found = {name: one for name, one in found.items() if all(word in f"{one.family} {name}" for word in given.words)}
    if not found:
        raise InputError(f"recipes {' '.join(given.words)}: no recipe has that in its name; see `robustmaps recipes`")
    rows = [
        (name, one.family, one.program or "-", f"{one.description}{f' Open: {one.open}.' if one.open else ''}")
        for name, one in found.items()
    ]
    values = {name: to_mapping(read_recipe(name)) for name in found} if given.json else {}
    about = {
        name: {"family": one.family, "program": one.program, "open": one.open, "description": one.description}
        for name, one in found.items()
    }
    Output(given.json).result(
        {"recipes": values, "about": about}, table(("recipe", "family", "program", "what it is"), rows, words=4)
    )

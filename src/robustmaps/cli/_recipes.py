"""``robustmaps recipes``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.errors import InputError
from robustmaps.engine.tables import table

DESCRIPTION = """List the recipes: the paper's experiments, and small ones that a CPU trains in minutes. Train one with
robustmaps train --recipe NAME; options on the command line override it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the list.

    Attributes:
        words: words that a recipe's name must all contain
        json: print the list as one JSON object, with every key of each recipe
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "recipes", DESCRIPTION)
    from robustmaps.config import describe_recipe, read_recipe, recipe_names, to_mapping

    names = [name for name in recipe_names() if all(word in name for word in given.words)]
    if not names:
        raise InputError(f"recipes {' '.join(given.words)}: no recipe has that in its name; see `robustmaps recipes`")
    rows = [(name, describe_recipe(name)) for name in names]
    values = {name: to_mapping(read_recipe(name)) for name in names} if given.json else {}
    Output(given.json).result({"recipes": values}, table(("recipe", "what it is"), rows, words=2))

"""``robustmaps recipes``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.cli._terminal._shared import Output
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.tables import table

if TYPE_CHECKING:
    from robustmaps.config import Recipe

DESCRIPTION = """List the recipes: the paper's experiments as published, the same values on more networks (extension),
our variants of them (ours), and small ones that a CPU trains in minutes. Train one with robustmaps train --recipe NAME;
options on the command line override it."""


@dataclass(frozen=True)
class Arguments:
    """Options of the list.

    Attributes:
        words: parts of names, families or data sets that all listed recipes have, e.g. published at resnet18
        json: print the list as one JSON object, with every key that has an effect in each recipe
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    json: bool = False


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    given = parse(Arguments, arguments, "recipes", DESCRIPTION)
    from robustmaps.config import FAMILIES, find_recipe, in_effect, read_recipe, recipe_names

    everything = {name: find_recipe(name) for name in recipe_names()}
    found = {name: one for name, one in everything.items() if all(_has(word, name, one) for word in given.words)}
    if not found:
        raise _none(given.words, everything)
    unclear = dict.fromkeys(one.open for one in found.values() if one.open)
    notes = {text: f"[{number}]" for number, text in enumerate(unclear, 1)}
    rows = [
        (name, one.family, " ".join([one.description, *([notes[one.open]] if one.open else [])]))
        for name, one in found.items()
    ]
    families = [f"{family}: {text}." for family, text in FAMILIES.items() if family in {row[1] for row in rows}]
    programs = dict.fromkeys(f"{one.values['defense']} {one.program}" for one in found.values() if one.program)
    values = {name: in_effect(read_recipe(name)) for name in found} if given.json else {}
    about = {
        name: {"family": one.family, "program": one.program, "open": one.open, "description": one.description}
        for name, one in found.items()
    }
    Output(given.json).result(
        {"recipes": values, "about": about},
        table(("recipe", "family", "what it is"), rows, words=3, whole=1),
        *families,
        *([f"Programs: {', '.join(programs)}."] if programs else []),
        *(f"{number} Open: {text}." for text, number in notes.items()),
    )


def _has(word: str, name: str, recipe: "Recipe") -> bool:
    """Whether a word is a family, a data set or a part of a name; parts end at hyphens."""
    return word in (recipe.family, recipe.values["data"]) or f"-{word}-" in f"-{name}-"


def _none(words: Sequence[str], recipes: "Mapping[str, Recipe]") -> InputError:
    parts = {part for name, one in recipes.items() for part in (one.family, *name.split("-"))}
    for word in words:
        if not any(_has(word, name, one) for name, one in recipes.items()):
            return unknown("word", word, sorted(parts))
    return InputError(f"recipes {' '.join(words)}: no recipe has all of that in its name; see `robustmaps recipes`")

"""Completion of verbs, options and their choices in a shell."""

import contextlib
import importlib
from collections.abc import Mapping
from typing import Annotated, Any, Union

import tyro

from robustmaps.cli._terminal._parsing import parse
from robustmaps.engine.errors import unknown

PRINT = "--tyro-print-completion"
SHELLS = ("bash", "zsh", "fish")


def print_completion(shell: str, verbs: Mapping[str, str], modules: Mapping[str, str]) -> None:
    """Print the script that a shell reads to complete the command.

    Args:
        shell: one of `SHELLS`.
        verbs: what each verb does.
        modules: the module of each.

    Raises:
        InputError: another shell.
    """
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    kinds = [
        Annotated[
            importlib.import_module(modules[verb]).Arguments,
            tyro.conf.subcommand(verb, description=about, prefix_name=False),
        ]
        for verb, about in verbs.items()
    ]
    everything: Any = Union[tuple(kinds)]  # noqa: UP007 - of a list
    with contextlib.suppress(SystemExit):  # how tyro ends
        parse(everything, [PRINT, shell], "", "")

"""What the verdicts of attacks are called, in files and for people."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from robustmaps import attacks as _attacks
from robustmaps.engine.errors import InputError
from robustmaps.evaluation._result import ROBUST, WRONG


def verdict_names(attacks: Sequence[str]) -> list[str]:
    """The verdicts of the samples that attacks of these names break: the name, with a number if several share it.

    Raises:
        InputError: a name means something else as a verdict.
    """
    names: list[str] = []
    for position, attack in enumerate(attacks):
        if attack in (ROBUST, WRONG):
            raise InputError(f"attack {attack!r}: the name stands for a verdict; give the attack another name")
        taken = {*names, *attacks[position + 1 :]} if attack in names else set()
        numbered = (f"{attack}#{number}" for number in itertools.count(position + 1))
        names.append(next(name for name in itertools.chain([attack], numbered) if name not in taken))
    return names


def shown_names(attacks: Sequence[Mapping[str, Any]], *, titled: bool = False) -> dict[str, str]:
    """For people, the name of each attack's verdict: a preset is called by its name, which files do not know.

    Args:
        attacks: the settings of an evaluation's attacks, in order.
        titled: as papers write them, not as on the command line.
    """
    name_of = _attacks.title_of if titled else str
    recorded = verdict_names([str(attack["name"]) for attack in attacks])
    return dict(zip(recorded, verdict_names([name_of(_attacks.called(attack)) for attack in attacks]), strict=True))

"""``--allow-code``: one option of every verb that opens networks which files describe."""

import os
from collections.abc import Sequence

from robustmaps.engine.trust import Trust, names_code

ALLOW_CODE = "--allow-code"
OPENING = frozenset(
    {
        *("train", "reproduce", "evaluate", "diagnose", "sweep", "search", "advise", "export"),
        *("analyze", "plan", "enlarge", "report", "compare", "runs"),
    }
)
"""The verbs that open networks."""
HELP = f"""With {ALLOW_CODE}, files may name functions (MODULE:FUNCTION) whose code is run to make their networks.
Without it, only those on this command line are run."""


def split(verb: str, arguments: Sequence[str]) -> tuple[list[str], Trust]:
    """The arguments without ``--allow-code``, and the trust that they express."""
    if verb not in OPENING:
        return list(arguments), Trust()
    rest = [word for word in arguments if word != ALLOW_CODE]
    typed = {part for word in rest for part in (word, word.partition("=")[2])}
    # Whoever types the path of a file or folder has not typed the name of a function, whatever the file is called.
    named = frozenset(word for word in typed if names_code(word) and not os.path.lexists(word))
    return rest, Trust(named, everything=len(rest) < len(arguments))

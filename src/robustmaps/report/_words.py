"""Words and limits that the parts of a report share."""

from robustmaps.evaluation import Comparison

NONE = "-"
"""In a table, for what is not known."""
NOT_EVALUATED = "Nothing has been evaluated yet. This does it:"
MOST_LINES = 8
"""Configurations in one plot of lines: as many as there are colours."""


def as_sentence(comparison: Comparison) -> str:
    """A comparison as a sentence of its own: with a capital, unless it begins with a name, and a full stop."""
    text = comparison.sentence()
    return f"{'N' if text.startswith('no difference') else text[0]}{text[1:]}."

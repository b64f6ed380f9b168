"""Words and limits that the parts of a report share."""

NOT_EVALUATED = "Nothing has been evaluated yet. This does it:"
MOST_LINES = 8
"""Configurations in one plot of lines: as many as there are colours."""

"""The result of a check."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from robustmaps.evaluation._rates import at_least

Verdict = Literal["ok", "suspect", "skipped"]

# A check is suspicious only if chance is an unlikely cause: one in a hundred for each comparison.
_SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        name: the check.
        verdict: ``ok``, ``suspect``, or ``skipped`` if it could not be made.
        text: the result with figures, or the reason for skipping.
    """

    name: str
    verdict: Verdict
    text: str

    @property
    def page(self) -> str:
        """The page that explains the check, within the source tree."""
        return f"docs/diagnose/{self.name}.md"

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"name": self.name, "verdict": self.verdict, "text": self.text, "page": self.page}


class Outcome(NamedTuple):
    """A check's return value: whether it is suspicious, and a sentence with figures."""

    suspect: bool
    text: str


class SkippedError(Exception):
    """A check can't be made here; the message gives the reason."""


def exceeds(count: int, total: int, share: float) -> bool:
    """Whether ``count`` of ``total`` is significantly more than a share (exact binomial test).

    >>> exceeds(10, 190, 0.02), exceeds(9, 190, 0.02)
    (True, False)
    """
    if total == 0:
        return False
    return at_least(count, total, share) < _SIGNIFICANCE


def percent(count: int, total: int) -> str:
    """Format a share for a sentence.

    >>> percent(31, 100)
    '31 %'
    """
    return f"{100 * count / total:.0f} %" if total else "0 %"

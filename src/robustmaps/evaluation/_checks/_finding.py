"""What a check says."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from scipy import stats

PAGES = "docs/diagnose"
"""Where each check has a page of its own name, within the source tree."""

Verdict = Literal["ok", "suspect", "skipped"]

# A check speaks up only where chance is an unlikely reason: one in a hundred, for each comparison.
_SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class Finding:
    """One check's result.

    Attributes:
        name: the check.
        verdict: ``ok``, ``suspect``, or ``skipped`` where it could not be made.
        text: what was found, with figures; why it was skipped.
    """

    name: str
    verdict: Verdict
    text: str

    @property
    def page(self) -> str:
        """The page that explains the check, within the source tree."""
        return f"{PAGES}/{self.name}.md"

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return {"name": self.name, "verdict": self.verdict, "text": self.text, "page": self.page}


class Outcome(NamedTuple):
    """What a check returns: whether it is suspicious, and a sentence with figures."""

    suspect: bool
    text: str


class SkippedError(Exception):
    """A check can't be made here; the message says why."""


def exceeds(count: int, total: int, share: float) -> bool:
    """Whether so many of all are significantly more than that share of them (exact binomial test).

    >>> exceeds(10, 190, 0.02), exceeds(9, 190, 0.02)
    (True, False)
    """
    if total == 0:
        return False
    return bool(stats.binomtest(count, total, share, alternative="greater").pvalue < _SIGNIFICANCE)


def percent(count: int, total: int) -> str:
    """A share for a sentence.

    >>> percent(31, 100)
    '31 %'
    """
    return f"{100 * count / total:.0f} %" if total else "0 %"

"""When a run is given up: what it has won of late, drawn out to its end, does not reach an error."""

from torch import Tensor

from robustmaps.engine.numbers import check_at_least

# Prospects are judged at the end of each fifth of a run from the second on. Of 3233 runs of APGD and FAB against two
# networks the rule with a patience of 3 gave up 3113, of 179 of Square 165, and lost none of the 126 samples that whole
# runs break (CIFAR-10 (JPEG), l_inf and l2); of 3592 verdicts of AutoAttack on digits it changed 3. By tenths from
# the third on, AutoAttack lost one image of 500, and Square alone one of 40.
_PARTS, _FIRST = 5, 2


PATIENCE = 3.0
"""The patience of the rule above, with which evaluations are made."""


def patience(exhaustive: bool) -> float | None:
    """The patience of an evaluation."""
    return None if exhaustive else PATIENCE


def check_patience(patience: float | None) -> None:
    """Refuse a negative patience; None is an endless one."""
    if patience is not None:
        check_at_least("patience", patience, 0)


def is_due(done: int, steps: int) -> bool:
    """Whether progress is to be noted after that many of a run's steps."""
    return done % max(steps // _PARTS, 1) == 0


def hopeless(value: Tensor, before: Tensor, done: int, steps: int, patience: float | None) -> Tensor:
    """Which runs would end short of an error, even if they won ``patience`` times as much per step as of late.

    Args:
        value: how far each run is, (R,); at zero its sample is broken. Minus infinity where that is not known.
        before: the same when progress was last noted.
        done: steps done.
        steps: steps of a whole run.
        patience: None for an endless one.
    """
    window = max(steps // _PARTS, 1)
    if patience is None or done < _FIRST * window:
        return value.new_zeros(value.shape).bool()
    gain = (value - before) / window
    # Where nothing is known the difference is NaN, and the run goes on.
    return value + patience * (steps - done) * gain < 0

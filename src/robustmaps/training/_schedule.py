"""Learning-rate schedules as pure functions of progress, without state to save or resume."""

import math
from collections.abc import Callable

from robustmaps.engine.errors import InputError, unknown

Schedule = Callable[[float], float]
"""From completed epochs (a real number) to a factor of the peak learning rate."""

# Linear up, then linear down to zero (Smith & Topin, arXiv 1708.07120), as in fast adversarial training (2001.03994).
_ONE_CYCLE_RISE = 0.3


def parse_schedule(spec: str, epochs: int) -> Schedule:
    """The schedule that ``spec`` names, for a run of ``epochs``.

    >>> schedule = parse_schedule("step:100,105", 110)
    >>> schedule(99.9), schedule(100), schedule(106)
    (1.0, 0.1, 0.01)

    Raises:
        InputError: the schedule is unknown, or milestones are not ascending positive numbers.
    """
    name, _, details = spec.partition(":")
    if name == "step":
        return _step(spec, details, epochs)
    shapes: dict[str, Schedule] = {
        "cosine": lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
        "one-cycle": lambda epoch: _one_cycle(epoch / epochs),
        "constant": lambda _: 1.0,
    }
    if name not in shapes or details:
        raise unknown("schedule", spec, ["step", "step:100,105", "step:60,120,160@0.2", *shapes])
    return shapes[name]


def _step(spec: str, details: str, epochs: int) -> Schedule:
    listed, _, factor_text = details.partition("@")
    try:
        milestones = [float(m) for m in listed.split(",")] if listed else [epochs * 10 / 11, epochs * 21 / 22]
        factor = float(factor_text) if factor_text else 0.1
    except ValueError:
        milestones, factor = [], 0.0
    if not milestones or milestones != sorted(milestones) or milestones[0] <= 0 or not 0 < factor < 1:
        raise InputError(
            f"schedule={spec!r}: expected ascending epochs and a factor in (0, 1), such as 'step:60,120,160@0.2'"
        )
    return lambda epoch: _power(factor, sum(epoch >= milestone for milestone in milestones))


def _power(factor: float, times: int) -> float:
    # 1 / 10**2 equals 0.01 exactly; 0.1**2 does not.
    return 1 / (1 / factor) ** times


def _one_cycle(share: float) -> float:
    if share < _ONE_CYCLE_RISE:
        return share / _ONE_CYCLE_RISE
    return (1 - share) / (1 - _ONE_CYCLE_RISE)

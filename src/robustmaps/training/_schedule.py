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
        usual = ["step", "step:100,105", "step:60,120,160@0.2", "step:58,88,108@0.1,0.01,0.005"]
        raise unknown("schedule", spec, [*usual, *shapes])
    return shapes[name]


def _step(spec: str, details: str, epochs: int) -> Schedule:
    """Multiplied by one factor at each milestone, or at each by one of its own, as a share of the peak."""
    listed, _, shares = details.partition("@")
    try:
        milestones = [float(m) for m in listed.split(",")] if listed else [epochs * 10 / 11, epochs * 21 / 22]
        factors = [float(share) for share in shares.split(",")] if shares else [0.1]
    except ValueError:
        milestones, factors = [], []
    if (
        not milestones
        or milestones != sorted(milestones)
        or milestones[0] <= 0
        or len(factors) not in (1, len(milestones))
        or not all(0 < factor < 1 for factor in factors)
    ):
        raise InputError(
            f"schedule={spec!r}: expected ascending epochs, and one factor in (0, 1) or one per epoch, such as "
            "'step:60,120,160@0.2' or 'step:58,88,108@0.1,0.01,0.005'"
        )
    if len(factors) == 1:
        factors = [_power(factors[0], times) for times in range(1, len(milestones) + 1)]
    each = [1.0, *factors]
    return lambda epoch: each[sum(epoch >= milestone for milestone in milestones)]


def _power(factor: float, times: int) -> float:
    # 1 / 10**2 equals 0.01 exactly; 0.1**2 does not.
    return 1 / (1 / factor) ** times


def _one_cycle(share: float) -> float:
    if share < _ONE_CYCLE_RISE:
        return share / _ONE_CYCLE_RISE
    return (1 - share) / (1 - _ONE_CYCLE_RISE)

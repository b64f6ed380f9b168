"""The checks of `diagnose`, in order: from free ones to those that run attacks."""

from collections.abc import Callable

from robustmaps.evaluation._checks._finding import PAGES, Finding, Outcome, SkippedError, Verdict
from robustmaps.evaluation._checks._gradients import non_differentiable, zero_gradients
from robustmaps.evaluation._checks._modules import WithGradients, state_restored
from robustmaps.evaluation._checks._strength import black_box, large_eps, more_steps, transfer
from robustmaps.evaluation._checks._structure import (
    input_range,
    probabilities,
    stochastic,
    test_time_optimisation,
    training_mode,
)
from robustmaps.evaluation._checks._subject import CheckedNetwork, Surrogate

CHECKS: dict[str, Callable[[CheckedNetwork], Outcome]] = {
    "input-range": input_range,
    "training-mode": training_mode,
    "stochastic": stochastic,
    "probabilities": probabilities,
    "test-time-optimisation": test_time_optimisation,
    "zero-gradients": zero_gradients,
    "non-differentiable": non_differentiable,
    "large-eps": large_eps,
    "more-steps": more_steps,
    "black-box": black_box,
    "transfer": transfer,
}

__all__ = [
    "CHECKS",
    "PAGES",
    "CheckedNetwork",
    "Finding",
    "Outcome",
    "SkippedError",
    "Surrogate",
    "Verdict",
    "WithGradients",
    "state_restored",
]

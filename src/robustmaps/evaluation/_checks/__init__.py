"""The checks of `diagnose`, in order from free ones to those that run attacks, and those that `evaluate` makes."""

from collections.abc import Callable

from robustmaps.evaluation._checks._answers import answers
from robustmaps.evaluation._checks._differentiable import non_differentiable
from robustmaps.evaluation._checks._doubt import Doubt, Seen
from robustmaps.evaluation._checks._finding import Finding, Outcome, SkippedError, Verdict
from robustmaps.evaluation._checks._gradients import zero_gradients
from robustmaps.evaluation._checks._modules import WithGradients, state_restored
from robustmaps.evaluation._checks._passes import passes
from robustmaps.evaluation._checks._preprocessing import image_range, preprocessing
from robustmaps.evaluation._checks._strength import black_box, large_eps, more_steps, transfer
from robustmaps.evaluation._checks._structure import (
    input_range,
    probabilities,
    stochastic,
    test_time_optimisation,
    training_mode,
)
from robustmaps.evaluation._checks._subject import CheckedNetwork, Surrogate
from robustmaps.evaluation._result import NORMS

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
    "NORMS",
    "CheckedNetwork",
    "Doubt",
    "Finding",
    "Outcome",
    "Seen",
    "SkippedError",
    "Surrogate",
    "Verdict",
    "WithGradients",
    "answers",
    "image_range",
    "passes",
    "preprocessing",
    "state_restored",
]

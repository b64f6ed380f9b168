"""Networks that are rugged but honest: kinks at the scale of the budget, with a derivative that attacks can use."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from robustmaps.attacks import logit_margin, project
from robustmaps.engine.calling import network_logits
from robustmaps.engine.modes import frozen_copy, hidden_modules
from robustmaps.engine.random import stream
from robustmaps.engine.view import plain_view
from robustmaps.evaluation._checks._doubt import evenly
from robustmaps.evaluation._checks._gradients import agreement, per_pixel
from robustmaps.evaluation._checks._subject import CheckedNetwork

# Over steps as short as this, a fraction of eps, the derivative of a network with kinks explains nearly all of the
# change, that of one with jumps nearly nothing. In float64 there is no rounding to hide that.
_SHORT, _EXACT = 1e-2, 0.9
_STEPS = 10
# Points over which the gradient is averaged, and how far they are, as a fraction of eps.
_POINTS, _REACH = 16, 1 / 4
_IMAGES = 64
# Along the average, the margin rose 7.7 times as much as along the gradient behind `x + 0.02 sin(400 x)`.
_MORE = 1.4


def is_only_rugged(subject: CheckedNetwork) -> bool:
    """Whether the derivative is the network's own, and attacks along it break every image or lose little by ruggedness.

    Random steps of the budget's size then disagree with the gradient, and attacks do not suffer from that.
    """
    if not _derivative_is_exact(subject):
        return False
    rows = evenly(subject.correct, _IMAGES)
    before = _margins(subject, subject.x[rows], rows)
    along = _margins(subject, _attacked(subject, subject.attacked, rows), rows)
    if bool((along >= 0).all()):
        return True
    generator = stream(subject.seed, "average", device=subject.x.device)
    smooth = _Averaged(subject.attacked, subject.eps * _REACH, subject.norm, generator)
    averaged = _margins(subject, _attacked(subject, smooth, rows), rows)
    gained, possible = ((after - before).mean() for after in (along, averaged))
    return bool(possible <= _MORE * gained)


def _derivative_is_exact(subject: CheckedNetwork) -> bool:
    """Whether the gradient predicts very short steps of a copy in float64."""
    try:
        exact = frozen_copy(subject.model)
        for network in (exact, *hidden_modules(exact).values()):
            network.double()
        with plain_view(exact) as view:
            precise = replace(subject, model=exact, attacked=exact, view=view, x=subject.x.double())
            precise.know(subject.clean)
            return agreement(precise, evenly(subject.correct, _IMAGES), _SHORT) >= _EXACT
    except Exception:  # noqa: BLE001 - the network may insist on its precision, or refuse to be copied
        return False


def _attacked(subject: CheckedNetwork, model: nn.Module, rows: Tensor) -> Tensor:
    attack = subject.steps(_STEPS, loss="margin", to_the_end=True)
    x = subject.x[rows]
    with plain_view(model) as view:
        found = attack(view, x, subject.y[rows], generator=stream(subject.seed, "rugged", device=x.device))
    return project(found, x, subject.eps, subject.norm)


def _margins(subject: CheckedNetwork, x: Tensor, rows: Tensor) -> Tensor:
    return logit_margin(subject.logits(x), subject.y[rows])


class _Averaged(nn.Module):
    """The mean of a network's logits at random points around each image."""

    def __init__(self, network: nn.Module, reach: float, norm: str, generator: torch.Generator) -> None:
        super().__init__()
        self.network, self.reach, self.norm, self.generator = network, reach, norm, generator

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        size = self.reach / per_pixel(self.norm, x[0].numel())
        total = torch.zeros((), device=x.device)
        for _ in range(_POINTS):
            noise = torch.empty_like(x).uniform_(-size, size, generator=self.generator)
            total = total + network_logits(self.network, x + noise)
        return total / _POINTS

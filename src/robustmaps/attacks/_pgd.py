"""Projected gradient descent."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustmaps.attacks._base import check_batch, check_labels
from robustmaps.attacks._geometry import project, steepest, uniform_in_ball
from robustmaps.attacks._losses import LOSSES, Value
from robustmaps.attacks._patience import Circles
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import check_at_least, check_eps, check_whole
from robustmaps.engine.ranks.sharing import by_image
from robustmaps.engine.view import AttackView, plain_view

Start = Literal["uniform", "normal", "none"]

# TRADES starts its attack at the clean image plus 0.001 times Gaussian noise (arXiv 1901.08573, released code).
_NORMAL_START_STD = 1e-3


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al., arXiv 1706.06083).

    Each restart begins at a random point of the ball and makes ``steps`` steps of steepest ascent of the loss, each
    projected onto the ball and clipped to [0, 1].

    >>> PGD(eps=8 / 255).step_length == 2 / 255
    True

    Attributes:
        norm: ``linf`` or ``l2``.
        eps: the radius of the ball, in units of images in [0, 1].
        steps: gradient steps per restart.
        step_size: the length of a step in ``norm``; None for ``2.5 * eps / steps``.
        restarts: independent starts; the worst case of each sample is kept.
        loss: ``ce`` (cross-entropy), ``kl`` (against the clean prediction) or ``margin``.
        start: ``uniform`` in the ball, ``normal`` with standard deviation 0.001, or ``none``: the clean image.
        early_stop: stop at the first misclassified iterate of a sample and return it. This saves much work in
            evaluations; training needs the last iterate.
        tau: with ``early_stop``, further steps of a misclassified sample (friendly adversarial training,
            arXiv 2002.11242, algorithm 1).
        step_noise: uniform noise in [0, ``step_noise``) that is added to every entry of a step's direction; it helps
            friendly adversarial training out of points without a gradient.
        relative_step: the length of a step relative to ``eps``, instead of ``step_size``.
        exhaustive: make every step. Otherwise an image is finished, with the same result, when its iterates go round
            in a circle; not with ``l2``, ``tau`` or ``step_noise``.

    Raises:
        InputError: a value is out of range.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    loss: Literal["ce", "kl", "margin"] = "ce"
    start: Start = "uniform"
    early_stop: bool = False
    tau: int = 0
    # Left out of the text, with which that of checkpoints and evaluations of before is compared.
    step_noise: float = field(default=0.0, repr=False)
    relative_step: float | None = field(default=None, repr=False)
    exhaustive: bool = field(default=False, repr=False)

    name = "pgd"

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise unknown("norm", self.norm, ["linf", "l2"])
        if self.loss not in LOSSES:
            raise unknown("loss", self.loss, LOSSES)
        if self.start not in ("uniform", "normal", "none"):
            raise unknown("start", self.start, ["uniform", "normal", "none"])
        check_eps(self.eps, self.norm)
        check_whole("steps", self.steps, 1)
        check_whole("restarts", self.restarts, 1)
        check_whole("tau", self.tau, 0)
        check_at_least("step_noise", self.step_noise, 0)
        if self.step_size is not None:
            check_at_least("step_size", self.step_size, 0, exclusive=True)
        if self.relative_step is not None:
            check_at_least("relative_step", self.relative_step, 0, exclusive=True)
            if self.step_size is not None:
                raise InputError(
                    f"step_size={self.step_size:g} and relative_step={self.relative_step:g}: expected one of the two"
                )
        if self.start == "none" and self.restarts > 1:
            raise InputError(f"restarts={self.restarts} with start='none': every restart would be the same; use 1")
        if self.start == "none" and self.loss == "kl":
            raise InputError("loss='kl' with start='none': its gradient is zero at the clean image; use start='normal'")

    @property
    def step_length(self) -> float:
        """The length of a step in ``norm``."""
        if self.relative_step is not None:
            return self.relative_step * self.eps
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size

    @property
    def spellings(self) -> tuple["PGD", ...]:
        """Attacks of the same values: without a length of a step, with it in ``norm``, and with it relative to eps."""
        ways = ((None, None), (self.step_length, None), (None, self.step_length / self.eps), (None, self.relative_step))
        each = (replace(self, step_size=size, relative_step=relative) for size, relative in ways)
        return tuple(dict.fromkeys(one for one in each if one.step_length == self.step_length))

    @property
    def for_validation(self) -> "PGD | None":
        """The attack to validate networks trained against this one; None if that takes another kind of attack.

        A single step can't detect catastrophic overfitting, and a divergence from the clean prediction ignores labels.
        """
        return replace(self, tau=0, step_noise=0.0) if self.loss == "ce" and self.steps > 1 else None

    def __call__(
        self, model: nn.Module | AttackView, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Adversarial images for ``x``, shape (N, C, H, W).

        Args:
            model: a network, used in evaluation mode and restored afterwards, or a view of one.
            x: images (N, C, H, W) in [0, 1].
            y: true labels (N,).
            generator: source of the random starts, on the device of ``x``.

        Raises:
            InputError: images or labels are invalid.
        """
        check_batch(x, y)
        loss = self._checked_loss(y)
        with plain_view(model) as view, torch.no_grad():
            x = view.prepared(x)
            if self.restarts > 1 or self.early_stop:
                return self._worst_case(view, loss, x, y, generator)
            target = LOSSES[self.loss].target(view, x, y)
            x_adv = self._start(x, generator)
            if self._may_circle:
                return self._walk(view, loss, x, y, target, x_adv, generator)[0]
            for _ in range(self.steps):
                direction = self._direction(_gradient(view, loss, x_adv, target)[1], self._noise(x, generator))
                x_adv = self._step(x, x_adv, direction)
            return x_adv

    @property
    def _may_circle(self) -> bool:
        """Whether a step depends on nothing but the iterate, and there are enough of them."""
        fixed = self.norm == "linf" and not (self.tau or self.step_noise)
        return fixed and self.steps > Circles.first and not self.exhaustive

    def _checked_loss(self, y: Tensor) -> Value:
        """The loss with a check of the labels, which are read once, since reading them makes a GPU wait."""
        highest = int(y.max())

        def value(logits: Tensor, target: Tensor) -> Tensor:
            if highest >= logits.shape[1]:
                check_labels(y, logits.shape[1])
            return LOSSES[self.loss].value(logits, target)

        return value

    def _start(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.start == "none":
            return x.clone()
        if self.start == "normal":
            noise = by_image(
                x,
                lambda whole: torch.empty_like(whole).normal_(std=_NORMAL_START_STD, generator=generator),
                generator,
            )
        else:
            noise = uniform_in_ball(x, self.eps, self.norm, generator)
        return project(x + noise, x, self.eps, self.norm)

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor | None:
        if not self.step_noise:
            return None
        return by_image(
            x, lambda whole: torch.empty_like(whole).uniform_(0.0, self.step_noise, generator=generator), generator
        )

    def _direction(self, gradient: Tensor, noise: Tensor | None) -> Tensor:
        direction = steepest(gradient, self.norm)
        return direction if noise is None else direction + noise

    def _step(self, x: Tensor, x_adv: Tensor, direction: Tensor) -> Tensor:
        return project(x_adv + self.step_length * direction, x, self.eps, self.norm)

    def _worst_case(
        self, view: AttackView, loss: Value, x: Tensor, y: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """A misclassified image if one is found, else the last iterate of the restart with the highest loss."""
        target = LOSSES[self.loss].target(view, x, y)
        best = x.clone()
        best_value = x.new_full((len(x),), -float("inf"))
        alive = torch.arange(len(x), device=x.device)
        for _ in range(self.restarts):
            # Every restart draws for the whole batch, so that a sample's start does not depend on the others' results.
            start = self._start(x, generator)[alive]
            x_adv, broken = self._walk(view, loss, x[alive], y[alive], target[alive], start, generator)
            value = torch.full_like(best_value[alive], torch.inf)
            whole = (~broken).nonzero().squeeze(1)
            if len(whole):
                logits, rows = view(x_adv[whole]), alive[whole]
                value[whole] = torch.where(is_right(logits, y[rows]), loss(logits, target[rows]), torch.inf)
            better = value > best_value[alive]
            best[alive[better]] = x_adv[better]
            best_value[alive[better]] = value[better]
            alive = alive[value != torch.inf]
            if len(alive) == 0:
                break
        return best

    def _walk(
        self,
        view: AttackView,
        loss: Value,
        x: Tensor,
        y: Tensor,
        target: Tensor,
        start: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """The last iterates, and whether they were stopped early at an error, (N,)."""
        result, rows, clean, current = start.clone(), torch.arange(len(x), device=x.device), x, start
        wrong_steps, finished = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
        # Only where images are dropped anyway: whoever asks for last iterates may count on batches that stay whole.
        whole = self.restarts == 1 and not self.early_stop
        circles = Circles(self.steps) if self._may_circle else None
        for done in range(self.steps):
            logits, gradient = _gradient(view, loss, current, target[rows])
            noise = self._noise(x, generator)
            ends = None if circles is None else circles.ended(current, logits, done)
            if self.early_stop:
                wrong_steps[rows] += ~is_right(logits, y[rows])
                wrong = wrong_steps[rows] > self.tau
                ends = wrong if ends is None else ends | wrong
            if ends is not None and bool(ends.any()):
                result[rows[ends]] = current[ends]
                finished[rows[ends]] = True
                if bool(finished.all()):
                    for _ in range(done + 1, self.steps):  # others may go on, and draw the same afterwards
                        self._noise(x, generator)
                    return result, wrong_steps > self.tau
                if not whole:
                    left = (~ends).nonzero().squeeze(1)
                    rows, clean, current, gradient = rows[left], clean[left], current[left], gradient[left]
                    if circles is not None:
                        circles.keep(left)
            direction = self._direction(gradient, None if noise is None else noise[rows])
            current = self._step(clean, current, direction)
        result[rows] = current
        return result, wrong_steps > self.tau


def _gradient(view: AttackView, loss: Value, x_adv: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits, _, gradient = view.gradient(x_adv, lambda logits: loss(logits, target))
    return logits, gradient


def _for_evaluation(*, steps: int = 20, restarts: int = 5, loss: Any = "ce", **budget: Any) -> PGD:
    start: Start = "normal" if loss == "kl" else "uniform"
    return PGD(**budget, steps=steps, restarts=restarts, loss=loss, start=start, early_stop=True)


_ALWAYS = {
    "loss": "loss to maximise: ce, margin or kl (default: ce)",
    "exhaustive": "make every step, even of images whose iterates go round in a circle",
}
ROWS = (
    AttackRow(
        name="pgd",
        title="PGD",
        summary="projected gradient descent from random starts (arXiv 1706.06083)",
        kind=PGD,
        create=_for_evaluation,
        parameters={
            "steps": "gradient steps per restart (default: 20)",
            "step_size": "length of a step (default: 2.5 * eps / steps)",
            "relative_step": "length of a step, relative to eps",
            "restarts": "independent random starts; the worst case counts (default: 5)",
            "loss": "loss to maximise: ce, margin or kl (default: ce)",
            "exhaustive": "make every step, even of images whose iterates go round in a circle",
        },
        passes=lambda attack: GRADIENT * attack.steps * attack.restarts,
    ),
    AttackRow(
        name="pgd-20",
        title="PGD-20",
        summary="preset: pgd with 20 steps of eps / 4 (2/255 at 8/255) and one random start",
        kind=PGD,
        preset_of="pgd",
        preset={"steps": 20, "relative_step": 0.25, "restarts": 1},
        parameters=_ALWAYS,
    ),
    AttackRow(
        name="pgd-100",
        title="PGD-100",
        summary="preset: pgd with 100 steps of eps / 4 (2/255 at 8/255) and one random start",
        kind=PGD,
        preset_of="pgd",
        preset={"steps": 100, "relative_step": 0.25, "restarts": 1},
        parameters=_ALWAYS,
    ),
)

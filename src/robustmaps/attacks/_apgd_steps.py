"""The steps of APGD: the iterates of a wave of runs, and the rules that move them and shrink their steps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmaps.attacks._geometry import norms, per_image, project, steepest

# Weight of the new direction against the last one (arXiv 2003.01690, algorithm 1).
_MOMENTUM = 0.75


@dataclass
class Climb:
    """The state of R runs, one per row.

    Attributes:
        sample: index of the run's sample, (R,).
        target: the class that the run aims at, (R,).
        x: clean images (R, C, H, W).
        current, previous: the iterate, and the one before.
        gradient, loss, wrong: of the loss at ``current``; the loss (R,); whether ``current`` is misclassified (R,).
        best, best_gradient, best_loss: the iterate of highest loss, likewise.
        step_size: (R,), in the attack's norm.
        rises: steps since the last check in which the loss rose, (R,).
        checked_loss: ``best_loss`` at the last check, (R,).
        halved: whether the last check shrank the step, (R,).
        support: entries changed by the perturbation at the last check, (R,); for l1.
        sparsity: fraction of all entries that a step changes, (R,); for l1.
        margin, noted_margin: the largest logit margin so far, and at the last check of progress, (R,).
    """

    sample: Tensor
    target: Tensor
    x: Tensor
    current: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    wrong: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step_size: Tensor
    rises: Tensor
    checked_loss: Tensor
    halved: Tensor
    support: Tensor
    sparsity: Tensor
    margin: Tensor
    noted_margin: Tensor

    @classmethod
    def start(cls, sample: Tensor, target: Tensor, x: Tensor, current: Tensor) -> "Climb":
        """Runs at their first iterate; call `record` next."""
        lowest = x.new_full((len(x),), -float("inf"))
        blank = torch.zeros_like(lowest)
        return cls(
            sample=sample,
            target=target,
            x=x,
            current=current,
            previous=current,
            gradient=torch.zeros_like(x),
            loss=-lowest,
            wrong=torch.zeros_like(sample, dtype=torch.bool),
            best=current.clone(),
            best_gradient=torch.zeros_like(x),
            best_loss=lowest,
            step_size=blank,
            rises=blank,
            checked_loss=lowest,
            halved=torch.ones_like(sample, dtype=torch.bool),
            support=blank,
            sparsity=blank,
            margin=lowest,
            noted_margin=lowest,
        )

    def __len__(self) -> int:
        return len(self.sample)

    def move(self, iterate: Tensor) -> None:
        """Move to the next iterate; call `record` next."""
        self.previous, self.current = self.current, iterate

    def record(self, gradient: Tensor, loss: Tensor, wrong: Tensor, margin: Tensor) -> None:
        """Record the network's results at ``current``."""
        self.gradient, self.wrong = gradient, wrong
        self.margin = torch.maximum(self.margin, margin)
        self.rises = self.rises + (loss > self.loss)
        self.loss = loss
        better = (loss > self.best_loss).nonzero().squeeze(1)
        self.best[better] = self.current[better]
        self.best_gradient[better] = gradient[better]
        self.best_loss[better] = loss[better]

    def back_to_best(self, rows: Tensor) -> None:
        """Return to the best iterate so far, for the rows of a mask (R,)."""
        rows = rows.nonzero().squeeze(1)
        self.current[rows] = self.best[rows]
        self.gradient[rows] = self.best_gradient[rows]


class Stepper(ABC):
    """The rule by which runs move within a ball of radius ``eps``."""

    def __init__(self, eps: float, steps: int) -> None:
        self.eps = eps
        self.steps = steps

    @abstractmethod
    def begin(self, climb: Climb, *, warm: bool) -> None:
        """Set the first step sizes; a ``warm`` climb starts at the best iterate of a larger ball."""

    @abstractmethod
    def next(self, climb: Climb, done: int) -> Tensor:
        """The next iterate of every run after ``done`` steps; steps of stalled runs shrink first."""


class MomentumStepper(Stepper):
    """Steepest ascent with momentum for l_inf and l2; steps are halved at checkpoints (arXiv 2003.01690, section 3)."""

    def __init__(self, norm: str, eps: float, steps: int, rho: float) -> None:
        super().__init__(eps, steps)
        self.norm = norm
        self.rho = rho
        self._windows = _checkpoints(steps)

    def begin(self, climb: Climb, *, warm: bool) -> None:  # noqa: ARG002
        """The first step may cross the whole ball."""
        climb.step_size = torch.full_like(climb.best_loss, 2.0 * self.eps)
        climb.checked_loss = climb.best_loss.clone()

    def next(self, climb: Climb, done: int) -> Tensor:
        """A projected step, mixed with the last step's direction and projected again."""
        self._check(climb, done)
        ahead = climb.current + per_image(climb.step_size) * steepest(climb.gradient, self.norm)
        ahead = project(ahead, climb.x, self.eps, self.norm)
        if done == 0:
            return ahead
        mixed = climb.current + _MOMENTUM * (ahead - climb.current)
        mixed += (1 - _MOMENTUM) * (climb.current - climb.previous)
        return project(mixed, climb.x, self.eps, self.norm)

    def _check(self, climb: Climb, done: int) -> None:
        """Conditions 1 and 2 of the paper: the loss rose too rarely, or neither step size nor best loss changed."""
        window = self._windows.get(done)
        if window is None:
            return
        seldom = climb.rises <= self.rho * window
        stuck = ~climb.halved & (climb.checked_loss >= climb.best_loss)
        climb.halved = seldom | stuck
        climb.checked_loss = climb.best_loss.clone()
        climb.rises = torch.zeros_like(climb.rises)
        climb.step_size = torch.where(climb.halved, climb.step_size / 2, climb.step_size)
        climb.back_to_best(climb.halved)


class SparseStepper(Stepper):
    """Sparse ascent for l1: a step changes only the entries of steepest slope (arXiv 2103.01208, algorithm 1).

    Their number follows from the number of entries that the best perturbation changes. When that number falls, the
    climb restarts from the best iterate with a large step; otherwise the step shrinks.
    """

    # The paper's constants: initial share of entries, ratio of support to sparsity (and of successive steps), ratio of
    # supports that counts as falling, and ratio of largest to smallest step.
    first_sparsity, ratio, falling, step_range = 0.2, 1.5, 0.95, 10.0

    def begin(self, climb: Climb, *, warm: bool) -> None:
        """A fresh climb starts dense; a warm one takes its sparsity from its perturbation."""
        size = climb.x[0].numel()
        if warm:
            climb.support = _support(climb.current - climb.x)
            climb.sparsity = climb.support / (self.ratio * size)
        else:
            climb.support = torch.full_like(climb.best_loss, size)
            climb.sparsity = torch.full_like(climb.best_loss, self.first_sparsity)
        climb.step_size = torch.full_like(climb.best_loss, self.eps)

    def next(self, climb: Climb, done: int) -> Tensor:
        """Equal steps in the entries of largest gradient, projected onto the ball and the box."""
        self._check(climb, done)
        # Entries blocked by the box can't move and would take the place of others.
        stopped = torch.where(climb.gradient > 0, climb.current >= 1, climb.current <= 0)
        slope = climb.gradient.abs().masked_fill(stopped, 0.0).flatten(1)
        size = slope.shape[1]
        count = (climb.sparsity * size).long().clamp(1, size)
        least = slope.sort(dim=1).values.gather(1, (size - count)[:, None])
        direction = (climb.gradient.flatten(1).sign() * (slope >= least)).view_as(climb.x)
        length = climb.step_size / norms(direction, "l1").clamp(min=1.0)
        return project(climb.current + per_image(length) * direction, climb.x, self.eps, "l1")

    def _check(self, climb: Climb, done: int) -> None:
        """Adapt sparsity and step size every few steps."""
        if done == 0 or done % max(int(0.04 * self.steps), 1):
            return
        support = _support(climb.best - climb.x)
        falls = support < self.falling * climb.support
        climb.support = support
        climb.sparsity = support / (self.ratio * climb.x[0].numel())
        smaller = (climb.step_size / self.ratio).clamp(min=self.eps / self.step_range)
        climb.step_size = torch.where(falls, torch.full_like(smaller, self.eps), smaller)
        climb.back_to_best(falls)


def _checkpoints(steps: int) -> dict[int, int]:
    """The steps after which a check is due, with the number of steps since the last one.

    The first window is 22 % of all steps; each is shorter than the last by 3 % of the steps, down to 6 %.
    """
    window, least, shrink = (max(int(part * steps), 1) for part in (0.22, 0.06, 0.03))
    windows = {}
    end = window
    while end <= steps:
        windows[end] = window
        window = max(window - shrink, least)
        end += window
    return windows


def _support(delta: Tensor) -> Tensor:
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)

"""Auto-PGD: projected gradient ascent with adaptive step sizes."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmaps.attacks._apgd_steps import Climb, MomentumStepper, SparseStepper, Stepper
from robustmaps.attacks._batching import Clock, fork, one_each, seeds, select, waves
from robustmaps.attacks._geometry import on_sphere, project
from robustmaps.attacks._losses import dlr, likeliest_wrong, logit_margin, possible_classes, targeted_dlr
from robustmaps.attacks._patience import check_patience, hopeless, is_due, patience
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.attacks._watched import Batch, WatchedAttack
from robustmaps.engine.errors import unknown
from robustmaps.engine.finite import is_right
from robustmaps.engine.numbers import check_at_least

_NAMES = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-t": "apgd-t"}

# Larger balls first, with their share of the steps (arXiv 2103.01208, section 3.3).
_SHRINKING_RADII = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))


@dataclass(frozen=True)
class APGD(WatchedAttack):
    """Auto-PGD (Croce & Hein, arXiv 2003.01690), for l1 as in "Mind the box" (arXiv 2103.01208).

    A sample is finished as soon as it is misclassified; if no run achieves that, the closest iterate is returned.
    Samples that are misclassified from the start are returned unchanged.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius of the ball, in units of images in [0, 1].
        steps: gradient steps per run.
        restarts: random starts, per target if there are targets.
        loss: ``ce`` (cross-entropy), ``dlr`` (difference of logits ratio) or ``dlr-t`` (one wrong class at a time).
            With fewer than three classes, or four for ``dlr-t``, a defined loss is used instead, with a warning.
        targets: the number of classes that ``dlr-t`` aims at, likeliest first; at most all wrong classes.
        rho: a step is halved if the loss rose in at most this fraction of the steps.
        eot: passes whose logits and gradients are averaged, for randomised networks.
        shrinking_radii: first climb in balls of three and two times ``eps``; None does so only for l1, as in the paper.
        batch_size: parallel runs over samples, targets and restarts; None: 64 on a CPU, 512 on a GPU.
        patience: stop a run early if its margin would not reach an error even when rising this many times as fast as
            over the last fifth of the steps; None to always finish.

    Raises:
        InputError: a value is out of range.
    """

    steps: int = 100
    restarts: int = 1
    loss: Literal["ce", "dlr", "dlr-t"] = "ce"
    targets: int = 9
    rho: float = 0.75
    eot: int = 1
    shrinking_radii: bool | None = None
    batch_size: int | None = None
    patience: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in _NAMES:
            raise unknown("loss", self.loss, _NAMES)
        for name in ("steps", "restarts", "targets", "eot"):
            check_at_least(name, getattr(self, name), 1)
        if self.batch_size is not None:
            check_at_least("batch_size", self.batch_size, 1)
        check_at_least("rho", self.rho, 0, exclusive=True)
        check_patience(self.patience)

    @property
    def name(self) -> str:
        """``apgd-ce``, ``apgd-dlr`` or ``apgd-t``."""
        return _NAMES[self.loss]

    def _attacked(self, batch: Batch) -> Tensor:
        self._check_classes(len(possible_classes(batch.logits)))
        targets = likeliest_wrong(batch.logits, batch.y, self.targets if self.loss == "dlr-t" else 1)
        drawn = seeds(self.restarts * targets.shape[1], batch.generator)
        return _Attempt(self, batch, targets, drawn).run()

    def steppers(self) -> list[Stepper]:
        """The step rules, one per radius."""
        if self.shrinking_radii or (self.shrinking_radii is None and self.norm == "l1"):
            phases = [(factor * self.eps, max(round(part * self.steps), 1)) for factor, part in _SHRINKING_RADII]
        else:
            phases = [(self.eps, self.steps)]
        if self.norm == "l1":
            return [SparseStepper(radius, steps) for radius, steps in phases]
        return [MomentumStepper(self.norm, radius, steps, self.rho) for radius, steps in phases]

    def objective(self, y: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
        """The loss: from logits (N, K) to one value per sample (N,)."""
        if self.loss == "ce":
            return lambda logits: F.cross_entropy(logits, y, reduction="none")
        if self.loss == "dlr":
            return lambda logits: dlr(logits, y)
        return lambda logits: targeted_dlr(logits, y, target)

    def _check_classes(self, num_classes: int) -> None:
        needed = {"ce": 2, "dlr": 3, "dlr-t": 4}[self.loss]
        if num_classes < needed:
            warnings.warn(
                f"{self.name}: the loss needs {needed} classes and the network has {num_classes}; "
                "using the logit margin or a ratio to the third logit instead",
                stacklevel=4,
            )


@dataclass
class _Attempt:
    """One call of `APGD`."""

    attack: APGD
    batch: Batch
    targets: Tensor
    seeds: list[int]

    def __post_init__(self) -> None:
        self.view, self.x, self.y = self.batch.view, self.batch.x, self.batch.y
        self.result = self.x.clone()
        self.margin = self.x.new_full((len(self.x),), -float("inf"))
        self.standing = self.batch.standing

    def run(self) -> Tensor:
        """Climb with every sample and variant until the sample is broken."""
        steppers = self.attack.steppers()
        runs = int(self.standing.sum()) * len(self.seeds)
        clock = Clock(self.attack.name, sum(stepper.steps for stepper in steppers), runs, self.batch.watcher)
        for sample, variant, waiting in waves(self.standing, len(self.seeds), self.attack.batch_size):
            target = self.targets[sample, variant % self.targets.shape[1]]
            current = self._starts(sample, variant, steppers[0].eps)
            clock.start(waiting)
            for stepper in steppers:
                climb = self._begin(stepper, sample, target, current, warm=stepper is not steppers[0])
                # Only results within the last ball count.
                climb = self._climb(stepper, climb, clock, counts=stepper is steppers[-1])
                sample, target, current = climb.sample, climb.target, climb.best
            self._keep_closest(climb)
        return self.result

    def _starts(self, sample: Tensor, variant: Tensor, radius: float) -> Tensor:
        """Random points on the sphere; each variant draws for all samples, broken or not."""
        start = torch.empty_like(self.x[sample])
        for number in sorted(set(variant.tolist())):
            rows = variant == number
            generator = fork(self.seeds[number], self.x.device)
            start[rows] = on_sphere(self.x, radius, self.attack.norm, generator)[sample[rows]]
        return self.x[sample] + start

    def _begin(self, stepper: Stepper, sample: Tensor, target: Tensor, current: Tensor, *, warm: bool) -> Climb:
        x = self.x[sample]
        climb = Climb.start(sample, target, x, project(current, x, stepper.eps, self.attack.norm))
        self._judge(climb)
        stepper.begin(climb, warm=warm)
        return climb

    def _judge(self, climb: Climb) -> None:
        objective = self.attack.objective(self.y[climb.sample], climb.target)
        logits, loss, gradient = self.view.gradient(climb.current, objective)
        for _ in range(self.attack.eot - 1):
            again = self.view.gradient(climb.current, objective)
            logits, loss, gradient = logits + again[0], loss + again[1], gradient + again[2]
        y = self.y[climb.sample]
        climb.record(gradient, loss, ~is_right(logits, y), logit_margin(logits, y))

    def _climb(self, stepper: Stepper, climb: Climb, clock: Clock, *, counts: bool) -> Climb:
        """Climb within one ball; return the runs of samples that are still unbroken."""
        for done in range(stepper.steps):
            if counts:
                climb = self._drop_hopeless(self._drop_broken(climb), done, stepper.steps)
            if len(climb) == 0:
                return climb
            climb.move(stepper.next(climb, done))
            self._judge(climb)
            clock.tick(len(climb))
        return self._drop_broken(climb) if counts else climb

    def _drop_broken(self, climb: Climb) -> Climb:
        """Save the samples that a run has just broken, and drop all their runs."""
        if not climb.wrong.any():
            return climb
        wrong = climb.wrong.nonzero().squeeze(1)
        wrong = wrong[one_each(climb.sample[wrong])]
        self.result[climb.sample[wrong]] = climb.current[wrong]
        self.standing[climb.sample[wrong]] = False
        return select(climb, self.standing[climb.sample])

    def _drop_hopeless(self, climb: Climb, done: int, steps: int) -> Climb:
        """Stop the runs that cannot succeed; other runs of their samples go on."""
        if not is_due(done, steps):
            return climb
        lost = hopeless(climb.margin, climb.noted_margin, done, steps, self.attack.patience)
        climb.noted_margin = climb.margin.clone()
        if not lost.any():
            return climb
        self._keep_closest(select(climb, lost))
        return select(climb, ~lost)

    def _keep_closest(self, climb: Climb) -> None:
        """For each unbroken sample, keep the best iterate of the run that came closest to breaking it."""
        if len(climb) == 0:
            return
        margin = logit_margin(self.view(climb.best), self.y[climb.sample])
        closest = self.margin.scatter_reduce(0, climb.sample, margin, "amax")
        rows = ((margin == closest[climb.sample]) & (margin > self.margin[climb.sample])).nonzero().squeeze(1)
        rows = rows[one_each(climb.sample[rows])]
        self.result[climb.sample[rows]] = climb.best[rows]
        self.margin = closest


def _for_evaluation(*, exhaustive: bool = False, **settings: Any) -> APGD:
    return APGD(**settings, patience=patience(exhaustive))


def _passes(attack: APGD) -> float:
    targets = attack.targets if attack.loss == "dlr-t" else 1
    return GRADIENT * attack.steps * attack.restarts * targets * attack.eot


_PARAMETERS = {"exhaustive": "make every step, even in runs that cannot succeed"}
ROWS = (
    AttackRow(
        name="apgd-ce",
        title="APGD-CE",
        summary="Auto-PGD on the cross-entropy (arXiv 2003.01690)",
        kind=APGD,
        create=partial(_for_evaluation, loss="ce"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="apgd-dlr",
        title="APGD-DLR",
        summary="Auto-PGD on the difference of logits ratio (arXiv 2003.01690)",
        kind=APGD,
        create=partial(_for_evaluation, loss="dlr"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="apgd-t",
        title="APGD-T",
        summary="Auto-PGD towards one wrong class after the other (arXiv 2003.01690)",
        kind=APGD,
        create=partial(_for_evaluation, loss="dlr-t"),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
)

"""The fast adaptive boundary attack: the smallest perturbation that changes the class."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustmaps.attacks._batching import Clock, fork, one_each, seeds, select, waves
from robustmaps.attacks._geometry import norms, on_sphere, per_image
from robustmaps.attacks._hyperplane import to_hyperplane
from robustmaps.attacks._losses import likeliest_wrong, logit_margin, possible_classes
from robustmaps.attacks._patience import check_patience, hopeless, is_due, patience
from robustmaps.attacks._registry import GRADIENT, AttackRow
from robustmaps.attacks._watched import Batch, WatchedAttack
from robustmaps.engine.numbers import check_at_least

# Keeps distances to a hyperplane finite where the gradient vanishes.
_TINY = 1e-12


@dataclass(frozen=True)
class FAB(WatchedAttack):
    """Fast adaptive boundary attack (Croce & Hein, arXiv 1907.02044).

    Each step goes to the linearised decision boundary, with a pull towards the clean image. After crossing the boundary
    it goes part of the way back, so that the perturbation shrinks.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius within which a perturbation counts, in units of images in [0, 1].
        steps: gradient steps per run.
        restarts: the first starts at the clean image, the others at random points nearby.
        targeted: aim at one wrong class at a time, with one gradient per step, instead of the nearest boundary, which
            takes a gradient per class.
        targets: the number of classes to aim at, likeliest first; at most all wrong classes.
        minimal: search for the smallest perturbation and return it even if longer than ``eps``. Otherwise a sample is
            finished at the first one within ``eps``, and returned unchanged if there is none.
        alpha_max: the largest weight of the clean image.
        eta: overshoot of a step beyond the boundary.
        beta: fraction of a perturbation that is kept after crossing the boundary.
        batch_size: parallel runs over samples, targets and restarts; None: 64 on a CPU, 512 on a GPU.
        patience: stop a run early if its perturbation would stay longer than ``eps`` even when shrinking this many
            times as fast as over the last fifth of the steps; None, or ``minimal``, to always finish.

    Raises:
        InputError: a value is out of range.
    """

    steps: int = 100
    restarts: int = 1
    targeted: bool = False
    targets: int = 9
    minimal: bool = False
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    batch_size: int | None = None
    patience: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "restarts", "targets"):
            check_at_least(name, getattr(self, name), 1)
        if self.batch_size is not None:
            check_at_least("batch_size", self.batch_size, 1)
        check_at_least("alpha_max", self.alpha_max, 0)
        check_at_least("eta", self.eta, 1)
        check_at_least("beta", self.beta, 0)
        check_patience(self.patience)

    @property
    def name(self) -> str:
        """``fab`` or ``fab-t``."""
        return "fab-t" if self.targeted else "fab"

    def _attacked(self, batch: Batch) -> Tensor:
        return _Attempt(self, batch).run()


@dataclass
class _Search:
    """The state of R runs, one per row: sample index, target class, clean image and current iterate.

    ``shortest`` is the norm of the smallest perturbation so far, infinite before the boundary was crossed; ``noted`` is
    its value at the last check of progress.
    """

    sample: Tensor
    target: Tensor
    x: Tensor
    current: Tensor
    shortest: Tensor
    noted: Tensor


@dataclass
class _Attempt:
    """One call of `FAB`."""

    attack: FAB
    batch: Batch

    def __post_init__(self) -> None:
        self.view, self.x, self.y = self.batch.view, self.batch.x, self.batch.y
        self.result = self.x.clone()
        self.distance = self.x.new_full((len(self.x),), torch.inf)
        self.standing = self.batch.standing
        logits = self.batch.logits
        self.classes = possible_classes(logits)
        self.targets = likeliest_wrong(logits, self.y, self.attack.targets if self.attack.targeted else 1)
        self.seeds = seeds(self.targets.shape[1] * self.attack.restarts, self.batch.generator)

    def run(self) -> Tensor:
        """Search with every sample, target and restart."""
        attack = self.attack
        clock = Clock(attack.name, attack.steps, int(self.standing.sum()) * len(self.seeds), self.batch.watcher)
        for sample, variant, waiting in waves(self.standing, len(self.seeds), attack.batch_size):
            clock.start(waiting)
            target = self.targets[sample, variant % self.targets.shape[1]]
            endless = self.x.new_full((len(sample),), torch.inf)
            search = _Search(sample, target, self.x[sample], self._starts(sample, variant), endless, endless)
            for done in range(1, attack.steps + 1):
                self._step(search)
                search = self._drop_hopeless(self._drop_broken(search), done)
                if len(search.sample) == 0:
                    break
                clock.tick(len(search.sample))
        return self.result

    def _starts(self, sample: Tensor, variant: Tensor) -> Tensor:
        """The clean image, or a random point at half the smaller of ``eps`` and the shortest distance so far."""
        start = self.x[sample]
        for number in range(self.targets.shape[1], len(self.seeds)):
            rows = variant == number
            if rows.any():
                noise = on_sphere(self.x, 0.5, self.attack.norm, fork(self.seeds[number], self.x.device))[sample[rows]]
                radius = self.distance[sample[rows]].clamp(max=self.attack.eps)
                start[rows] = (start[rows] + per_image(radius) * noise).clamp_(0.0, 1.0)
        return start

    def _step(self, search: _Search) -> None:
        """Algorithm 1 of the paper: a step to the boundary, mixed with the projection of the clean image."""
        attack, x, current = self.attack, search.x, search.current
        margin, normal = self._boundary(search)
        # The hyperplane is <normal, z - current> = -margin; from the clean image the gap differs.
        gap = -margin - (normal * (x - current)).flatten(1).sum(1)
        steps = to_hyperplane(
            torch.cat([current, x]), torch.cat([normal, normal]), torch.cat([-margin, gap]), attack.norm
        )
        lengths = norms(steps, attack.norm).clamp(min=1e-8)
        (from_current, from_clean), (near, far) = steps.chunk(2), lengths.chunk(2)
        pull = per_image((near / (near + far)).clamp(max=attack.alpha_max))
        ahead = (current + attack.eta * from_current) * (1 - pull) + (x + attack.eta * from_clean) * pull
        search.current = ahead.clamp_(0.0, 1.0)

    def _boundary(self, search: _Search) -> tuple[Tensor, Tensor]:
        """Margin of the target class over the true one (R,), negative while classified correctly, and its gradient."""
        y = self.y[search.sample]
        if self.attack.targeted:
            return self._margin(search.current, y, search.target)
        return self._nearest_boundary(search.current, y)

    def _nearest_boundary(self, current: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest boundary if each class's margin were linear (equation 7)."""
        dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[self.attack.norm]
        own = torch.searchsorted(self.classes, y)
        nearest = current.new_full((len(current),), torch.inf)
        margin, gradient = torch.zeros_like(nearest), torch.zeros_like(current)
        for step in range(1, len(self.classes)):
            value, slope = self._margin(current, y, self.classes[(own + step) % len(self.classes)])
            distance = value.abs() / (norms(slope, dual) + _TINY)
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            margin = torch.where(nearer, value, margin)
            gradient = torch.where(per_image(nearer), slope, gradient)
        return margin, gradient

    def _margin(self, current: Tensor, y: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        def difference(logits: Tensor) -> Tensor:
            return (logits.gather(1, other[:, None]) - logits.gather(1, y[:, None])).squeeze(1)

        _, margin, gradient = self.view.gradient(current, difference)
        return margin.nan_to_num(0.0, torch.inf, -torch.inf), gradient  # without a margin, no step

    def _drop_broken(self, search: _Search) -> _Search:
        """Save the perturbations that crossed the boundary and step back; drop the samples that are finished."""
        across = (logit_margin(self.view(search.current), self.y[search.sample]) > 0).nonzero().squeeze(1)
        if len(across) == 0:
            return search
        sample, found = search.sample[across], search.current[across]
        length = norms(found - search.x[across], self.attack.norm)
        search.shortest = search.shortest.index_put((across,), torch.minimum(search.shortest[across], length))
        shortest = self.distance.scatter_reduce(0, sample, length, "amin")
        limit = torch.inf if self.attack.minimal else self.attack.eps
        keep = (
            ((length == shortest[sample]) & (length < self.distance[sample]) & (length <= limit)).nonzero().squeeze(1)
        )
        keep = keep[one_each(sample[keep])]
        self.result[sample[keep]] = found[keep]
        self.distance = shortest
        search.current[across] = search.x[across] + self.attack.beta * (found - search.x[across])
        if self.attack.minimal or len(keep) == 0:
            return search
        self.standing[sample[keep]] = False
        return select(search, self.standing[search.sample])

    def _drop_hopeless(self, search: _Search, done: int) -> _Search:
        """Stop the runs whose perturbation will not become short enough."""
        if self.attack.minimal or not is_due(done, self.attack.steps):
            return search
        spare, before = (self.attack.eps - length for length in (search.shortest, search.noted))
        lost = hopeless(spare, before, done, self.attack.steps, self.attack.patience)
        search.noted = search.shortest.clone()
        return select(search, ~lost) if lost.any() else search


def _for_evaluation(*, exhaustive: bool = False, **settings: Any) -> FAB:
    return FAB(**settings, patience=patience(exhaustive))


def _passes(attack: FAB) -> float:
    return GRADIENT * attack.steps * attack.restarts * (attack.targets if attack.targeted else 1)


_PARAMETERS = {"exhaustive": "make every step, even in runs that cannot succeed"}
ROWS = (
    AttackRow(
        name="fab",
        title="FAB",
        summary="fast adaptive boundary attack: the smallest perturbation (arXiv 1907.02044)",
        kind=FAB,
        create=_for_evaluation,
        parameters=_PARAMETERS,
        passes=_passes,
    ),
    AttackRow(
        name="fab-t",
        title="FAB-T",
        summary="FAB towards one wrong class after the other (arXiv 1907.02044)",
        kind=FAB,
        create=partial(_for_evaluation, targeted=True),
        parameters=_PARAMETERS,
        passes=_passes,
    ),
)

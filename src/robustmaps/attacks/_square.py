"""Square attack: random search over square windows, which uses only the network's logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustmaps.attacks._batching import Clock, fork, seeds
from robustmaps.attacks._geometry import norms, per_image, project
from robustmaps.attacks._losses import logit_margin
from robustmaps.attacks._patience import check_patience, hopeless, is_due, patience
from robustmaps.attacks._registry import AttackRow
from robustmaps.attacks._square_windows import Proposal, bump, tile_px, tiles, windows
from robustmaps.attacks._watched import Batch, WatchedAttack
from robustmaps.engine.numbers import check_at_least
from robustmaps.engine.view import AttackView
from robustmaps.engine.views.incremental import incremental

_TINY = 1e-12


@dataclass(frozen=True)
class Square(WatchedAttack):
    """Square attack (Andriushchenko et al., arXiv 1912.00049), for l1 as in arXiv 2103.01208.

    A proposal changes one square window and is kept if it increases the logit margin. As in the authors' code, all
    samples of a batch share windows and signs, which depend only on the generator and not on the samples left.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius of the ball, in units of images in [0, 1].
        queries: forward passes per sample and restart.
        restarts: independent searches.
        p_init: fraction of the image that the first windows cover.
        patience: stop a search early if its margin would not reach an error even when rising this many times as fast
            as over the last fifth of the queries; None to always finish.

    Raises:
        InputError: a value is out of range.
    """

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    patience: float | None = None

    name = "square"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("queries", self.queries, 1)
        check_at_least("restarts", self.restarts, 1)
        check_at_least("p_init", self.p_init, 0, exclusive=True)
        check_patience(self.patience)

    def _attacked(self, batch: Batch) -> Tensor:
        x, result, margin = batch.x, batch.x.clone(), logit_margin(batch.logits, batch.y)
        clock = Clock(self.name, self.queries, int((margin <= 0).sum()) * self.restarts, batch.watcher)
        for number, seed in enumerate(seeds(self.restarts, batch.generator)):
            rows = (margin <= 0).nonzero().squeeze(1)
            clock.start(waiting=len(rows) * (self.restarts - number - 1))
            found, found_margin = self._search(batch.view, x, batch.y, rows, fork(seed, x.device), clock)
            better = found_margin > margin[rows] if number else torch.ones_like(rows, dtype=torch.bool)
            result[rows[better]], margin[rows[better]] = found[better], found_margin[better]
        return result

    def _search(
        self, view: AttackView, x: Tensor, y: Tensor, rows: Tensor, generator: torch.Generator, clock: Clock
    ) -> tuple[Tensor, Tensor]:
        """The best images and margins of the samples ``rows``, in this order."""
        candidates = _Linf if self.norm == "linf" else _Lp
        # Starts are drawn for all samples, so that a sample's start does not depend on which are left.
        search = candidates(self, view, x[rows], candidates.start(self, x, generator)[rows])
        y = y[rows]
        margin = logit_margin(search.logits, y)
        result, result_margin, place = search.best.clone(), margin.clone(), torch.arange(len(rows), device=x.device)
        noted = margin.clone()
        proposals = windows(self.queries - 1, x.shape, self.p_init, search.least_px, search.odd, generator)
        for done, window in enumerate(proposals, start=1):
            ended = margin > 0
            if is_due(done, self.queries):
                ended |= hopeless(margin, noted, done, self.queries, self.patience)
                noted = margin.clone()
            if ended.any():
                result[place[ended]], result_margin[place[ended]] = search.best[ended], margin[ended]
                left = (~ended).nonzero().squeeze(1)
                y, margin, noted, place = y[left], margin[left], noted[left], place[left]
                search.keep(left)
                if len(place) == 0:
                    break
            value = logit_margin(search.propose(window), y)
            better = (value > margin).nonzero().squeeze(1)
            if len(better):
                margin[better] = value[better]
                search.accept(better)
            clock.tick(len(place))
        result[place], result_margin[place] = search.best, margin
        return result, result_margin


class _Candidates(ABC):
    """The best images of a search so far, and the last proposal.

    Attributes:
        x: clean images (N, C, H, W).
        best: the best images so far, with their ``logits`` (N, K).
        least_px: side of the smallest window.
        odd: whether sides must be odd.
    """

    least_px: int
    odd: bool

    def __init__(self, attack: Square, view: AttackView, x: Tensor, best: Tensor) -> None:
        self.attack = attack
        self.view = view
        self.x = x
        self.best = best
        self.logits = view(best)

    @staticmethod
    @abstractmethod
    def start(attack: Square, x: Tensor, generator: torch.Generator) -> Tensor:
        """The first images of the search."""

    @abstractmethod
    def propose(self, window: Proposal) -> Tensor:
        """Logits (N, K) of the images with that window changed."""

    @abstractmethod
    def accept(self, rows: Tensor) -> None:
        """Make the last proposal the best of these rows."""

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows."""
        self.x, self.best, self.logits = self.x[rows], self.best[rows], self.logits[rows]


class _Linf(_Candidates):
    """Windows of one colour at the corners of the cube (section 3.2 of the paper).

    Windows soon become small, so if the network allows it, only the part of its maps that they reach is computed.
    """

    least_px = 1
    odd = False

    def __init__(self, attack: Square, view: AttackView, x: Tensor, best: Tensor) -> None:
        super().__init__(attack, view, x, best)
        self._known = incremental(view, best)
        self._patch, self._window = best, (slice(None), slice(None))

    @staticmethod
    def start(attack: Square, x: Tensor, generator: torch.Generator) -> Tensor:
        """Vertical stripes, one pixel wide."""
        stripes = torch.empty_like(x[:, :, :1]).uniform_(-1, 1, generator=generator).sign()
        return (x + attack.eps * stripes).clamp_(0.0, 1.0)

    def propose(self, window: Proposal) -> Tensor:
        """Logits of the proposal; images that the window does not change need no query."""
        rows, columns = self._window = window.first
        colour = self.attack.eps * window.signs[:, None, None].to(self.x)
        self._patch = (self.x[:, :, rows, columns] + colour).clamp_(0.0, 1.0)
        changed = (self._patch != self.best[:, :, rows, columns]).flatten(1).any(1).nonzero().squeeze(1)
        self._proposed = self.logits.clone()
        if len(changed) == 0:
            return self._proposed
        if self._known is not None:
            patch = self._patch[changed]
            self._proposed[changed] = self._known.propose(patch, rows.start, columns.start, changed)
        else:
            candidates = self.best[changed]
            candidates[:, :, rows, columns] = self._patch[changed]
            self._proposed[changed] = self.view(candidates)
        return self._proposed

    def accept(self, rows: Tensor) -> None:
        """Paste the window."""
        self.best[:, :, self._window[0], self._window[1]][rows] = self._patch[rows]
        self.logits[rows] = self._proposed[rows]
        if self._known is not None:
            self._known.accept(rows)

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows, also in the cached maps."""
        super().keep(rows)
        if self._known is not None:
            self._known.keep(rows)


class _Lp(_Candidates):
    """Windows that take over another window's share of the norm (section 3.3 of the paper)."""

    least_px = 3
    odd = True

    @staticmethod
    def start(attack: Square, x: Tensor, generator: torch.Generator) -> Tensor:
        """A grid of bumps."""
        size = tile_px(x.shape[2], x.shape[3])
        signs = x.new_empty(*x.shape[:2], x.shape[2] // size, x.shape[3] // size)
        bumps = tiles(signs.uniform_(-1, 1, generator=generator).sign(), x.shape, _order(attack.norm))
        return _fit(x, bumps, attack)

    def propose(self, window: Proposal) -> Tensor:
        """Give one window a new bump, with the mass of both windows and the unused budget."""
        order, delta = _order(self.attack.norm), self.best - self.x
        (rows, columns), (other_rows, other_columns) = window.first, window.second
        old = delta[:, :, rows, columns].clone()
        mass = _mass(delta, order)
        unused = (self.attack.eps**order - mass.sum(1, keepdim=True)).clamp(min=0.0)
        delta[:, :, rows, columns] = 0.0
        delta[:, :, other_rows, other_columns] = 0.0
        freed = (mass - _mass(delta, order)).clamp(min=0.0) + unused / delta.shape[1]
        shape = bump(window.size_px, order).to(delta)
        new = (shape.T if window.upright else shape) * window.signs[:, None, None].to(delta)
        new = new + old / _length(_mass(old, order), order)
        delta[:, :, rows, columns] = new / _length(_mass(new, order), order) * _length(freed, order)
        self._proposal = _fit(self.x, delta, self.attack)
        self._proposed = self.view(self._proposal)
        return self._proposed

    def accept(self, rows: Tensor) -> None:
        """Copy the whole image, since it was rescaled."""
        self.best[rows], self.logits[rows] = self._proposal[rows], self._proposed[rows]


def _order(norm: str) -> float:
    return 2.0 if norm == "l2" else 1.0


def _fit(x: Tensor, delta: Tensor, attack: Square) -> Tensor:
    """Images that use the whole budget, as far as [0, 1] allows."""
    if attack.norm == "l1":
        return project(x + delta, x, attack.eps, "l1")
    return (x + delta * per_image(attack.eps / norms(delta, "l2").clamp(min=_TINY))).clamp_(0.0, 1.0)


def _mass(delta: Tensor, order: float) -> Tensor:
    """Each channel's share of the norm, raised to the power ``order``, (N, C, 1, 1)."""
    return delta.abs().pow(order).sum((2, 3), keepdim=True)


def _length(mass: Tensor, order: float) -> Tensor:
    return mass.pow(1 / order).clamp(min=_TINY)


def _for_evaluation(*, exhaustive: bool = False, **budget: Any) -> Square:
    return Square(**budget, patience=patience(exhaustive))


ROW = AttackRow(
    name="square",
    title="Square",
    summary="random search over square windows, without gradients (arXiv 1912.00049)",
    kind=Square,
    create=_for_evaluation,
    parameters={"exhaustive": "make every query, even in runs that cannot succeed"},
    passes=lambda attack: float(attack.queries * attack.restarts),
)

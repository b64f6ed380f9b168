"""The optimizer step, for any defence."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustmaps.defenses import Defense, Loss, ReplayingDefense, at, scaled
from robustmaps.engine import ranks
from robustmaps.engine.errors import InputError
from robustmaps.engine.random import stream
from robustmaps.engine.ranks.sharing import Share, add_up
from robustmaps.engine.view import AttackEngine
from robustmaps.training._average import AveragedWeights
from robustmaps.training._options import TrainOptions
from robustmaps.training._schedule import parse_schedule
from robustmaps.training._state import Sums
from robustmaps.training._targets import cutmix, smoothed
from robustmaps.training._trainee import Trainee


class BatchTrainer:
    """Trains on one batch at a time; arguments as for `fit`.

    Args:
        average: averaged weights to update after each step, if any.

    Attributes:
        carried: the perturbations that free adversarial training carries from batch to batch, of all ranks.
        votes: what this rank is for; called at each step if there are other ranks.
        elected: for each of these, whether any rank was for it at the last step.
    """

    def __init__(
        self,
        trainee: Trainee,
        engine: AttackEngine,
        defense: Defense,
        options: TrainOptions,
        num_classes: int,
        average: AveragedWeights | None,
    ) -> None:
        self.trainee, self.engine, self.defense, self.options = trainee, engine, defense, options
        self.average = average
        self.optimizer = _optimizer(trainee.network, options)
        self.schedule = parse_schedule(options.schedule, options.epochs)
        self.num_classes = num_classes
        self.carried: Tensor | None = None
        self.votes: Callable[[], Sequence[bool]] = tuple
        self.elected: list[bool] = []
        self._waiting: list[tuple[int, Loss]] = []

    @property
    def reads(self) -> Callable[[int], Tensor] | None:
        """For a size of batch, the rows that this rank has to be given; None if it needs all, as mixing images does."""
        return None if ranks.size() == 1 or self.options.cutmix else self._own_rows

    def _own_rows(self, total: int) -> Tensor:
        """The rows of a batch that this rank works on, in the order in which it does."""
        share, rows = Share(), torch.arange(total)
        parts = [rows] if isinstance(self.defense, ReplayingDefense) else self.parts(rows)
        return torch.cat([part[_own(len(part), share)[0]] for part in parts])

    def __call__(self, x: Tensor, y: Tensor, total: int, epoch: int, step: int, steps: int, sums: Sums) -> None:
        """Train on a batch of so many images, of which ``x`` and ``y`` are those that `reads` says.

        It is step ``step`` of ``steps`` in its epoch, both counted from 0.
        """
        done = epoch + step / steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self.schedule(done)
        defense = self.defense_at(done, steps)
        generator = stream(self.options.seed, "attack", epoch, step, device=x.device)
        x, y, targets = self._mixed(x, y, epoch, step)
        if ranks.size() > 1 and len(x) == total:
            rows = self._own_rows(total).to(x.device)
            x, y, targets = x[rows], y[rows], None if targets is None else targets[rows]
        if isinstance(defense, ReplayingDefense):
            self._replay(defense, x, y, targets, total, sums)
            return
        self.optimizer.zero_grad(set_to_none=True)
        if ranks.size() > 1:
            generator = Share.of(generator)
        usual = x[: math.ceil(total / ranks.size())]
        with self.engine.view(usual) if defense.attack is not None else nullcontext() as view:
            end = 0
            for part in self.parts(torch.arange(total)):
                own, images = _own(len(part), generator)
                self.trainee.counted = images > 0
                here = slice(end, end + len(part[own]))
                end = here.stop
                some = None if targets is None else targets[here]
                loss = defense.loss(self.trainee, x[here], y[here], targets=some, view=view, generator=generator)
                (loss.value * (images / total)).backward()  # type: ignore[no-untyped-call]
                self._add(sums, images, loss)
        self._descend(sums, total)

    def parts(self, x: Tensor, least: int | None = None) -> tuple[Tensor, ...]:
        """The rows of each part of a batch, or of a rank's share of it, of which the smallest has ``least``."""
        # A single image has no batch statistics if the map is a single pixel.
        parts = min(self.options.accumulate, max((len(x) if least is None else least) // 2, 1))
        return torch.arange(len(x), device=x.device).tensor_split(parts)

    def defense_at(self, done: float, steps: int) -> Defense:
        """The defence after ``done`` epochs, with its budget warmed up."""
        defense = at(self.defense, done / self.options.epochs)
        if done + 1 / steps < self.options.eps_warmup:
            defense = scaled(defense, (done + 1 / steps) / self.options.eps_warmup)
        return defense

    def _mixed(self, x: Tensor, y: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, labels to attack, and target probabilities if they differ from those labels."""
        options = self.options
        if not self._mixes(epoch, step):
            return x, y, smoothed(y, self.num_classes, options.label_smoothing) if options.label_smoothing else None
        on_device = stream(options.seed, "cutmix boxes", epoch, step, device=x.device)
        x, other, left = cutmix(x, y, on_device)
        own, theirs = (smoothed(labels, self.num_classes, options.label_smoothing) for labels in (y, other))
        targets = left[:, None] * own + (1 - left)[:, None] * theirs
        return x, torch.where(left >= 0.5, y, other), targets

    def _mixes(self, epoch: int, step: int) -> bool:
        if not self.options.cutmix:
            return False
        drawn = torch.rand((), generator=stream(self.options.seed, "cutmix", epoch, step))
        return self.options.cutmix > float(drawn)

    def _replay(
        self, defense: ReplayingDefense, x: Tensor, y: Tensor, targets: Tensor | None, total: int, sums: Sums
    ) -> None:
        replays_left = defense.replays
        share = Share.of(torch.Generator(x.device)) if ranks.size() > 1 else None
        own, images = _own(total, share)
        weight, least = images / len(x), None if share is None else share.least
        self.trainee.counted = images > 0

        def step(x_adv: Tensor) -> None:
            nonlocal replays_left
            replays_left -= 1
            self.optimizer.zero_grad(set_to_none=True)
            for rows in self.parts(x, least):
                some = None if targets is None else targets[rows]
                loss = defense.outer(self.trainee, x[rows], x_adv[rows], y[rows], some)
                (loss.value * (weight * len(rows) / total)).backward()  # type: ignore[no-untyped-call]
                if not replays_left:
                    self._add(sums, round(weight * len(rows)), loss)
            self._descend(sums, total)

        if share is None:
            self.carried = defense.replay(x, self.carried, step)
            return
        before = None if self.carried is None or len(self.carried) < total else self.carried
        moved = defense.replay(x, None if before is None else before[own], step)
        after = moved.new_zeros(total, *moved.shape[1:])
        if images:
            after[own] = moved
        add_up([after])
        # A smaller last batch updates only the first rows.
        self.carried = after if before is None else torch.cat([after, before[total:]])

    def _add(self, sums: Sums, images: int, loss: Loss) -> None:
        """Count a part, after the reduction of the step if there are other ranks."""
        loss = replace(loss, value=loss.value.detach())
        if ranks.size() > 1:
            self._waiting.append((images, loss))
        else:
            sums.add(images, loss.value, loss.clean_correct, loss.robust_correct)

    def _reduce(self, sums: Sums, total: int) -> None:
        """Add up gradients, figures and votes of all ranks, in one reduction."""
        parameters = [p for p in self.trainee.network.parameters() if p.requires_grad]
        unused = [p for p in parameters if p.grad is None]
        for p in unused:
            p.grad = torch.zeros_like(p)
        device = parameters[0].device
        loss, clean, robust = figures = torch.zeros(3, device=device)
        for images, part in self._waiting:
            loss += part.value * images
            clean += 0 if part.clean_correct is None or not images else part.clean_correct
            robust += 0 if part.robust_correct is None or not images else part.robust_correct
        votes = torch.tensor(self.votes(), dtype=torch.float32, device=device)
        add_up([*(p.grad for p in parameters if p.grad is not None), figures, votes])
        for p in unused:
            if p.grad is not None and not p.grad.any():  # unused on all ranks
                p.grad = None
        if self._waiting:
            last = self._waiting[-1][1]
            seen = (None if last.clean_correct is None else clean, None if last.robust_correct is None else robust)
            sums.add(total, loss / total, *seen)
        self._waiting.clear()
        self.elected = [vote > 0 for vote in votes.tolist()]

    def _descend(self, sums: Sums, total: int) -> None:
        if ranks.size() > 1:
            self._reduce(sums, total)
        if self.options.clip_grad:
            nn.utils.clip_grad_norm_(self.trainee.network.parameters(), self.options.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.trainee.network)


def _own(images: int, generator: torch.Generator | None) -> tuple[slice, int]:
    """This rank's rows of so many images, and how many of them count."""
    if not isinstance(generator, Share):
        return slice(images), images
    generator.aim(images)
    return generator.rows, generator.images


def _optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(
            "the network has no parameter to train: all are frozen; call network.requires_grad_(True), or evaluate it"
        )
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay)

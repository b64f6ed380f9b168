"""The optimizer step, for any defence."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from robustmaps.defenses import Defense, Loss, ReplayingDefense, at, scaled
from robustmaps.engine.errors import InputError
from robustmaps.engine.random import stream
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
        carried: the perturbations that free adversarial training carries from batch to batch.
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

    def __call__(self, x: Tensor, y: Tensor, epoch: int, step: int, steps: int, sums: Sums) -> None:
        """Train on a batch, step ``step`` of ``steps`` in its epoch, both counted from 0."""
        done = epoch + step / steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * self.schedule(done)
        defense = self.defense_at(done, steps)
        generator = stream(self.options.seed, "attack", epoch, step, device=x.device)
        x, y, targets = self._mixed(x, y, epoch, step)
        if isinstance(defense, ReplayingDefense):
            self._replay(defense, x, y, targets, sums)
            return
        self.optimizer.zero_grad(set_to_none=True)
        with self.engine.view(x) if defense.attack is not None else nullcontext() as view:
            for rows in self.parts(x):
                some = None if targets is None else targets[rows]
                loss = defense.loss(self.trainee, x[rows], y[rows], targets=some, view=view, generator=generator)
                (loss.value * (len(rows) / len(x))).backward()  # type: ignore[no-untyped-call]
                _add(sums, len(rows), loss)
        self._descend()

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The rows of each part of a batch."""
        # A single image has no batch statistics if the map is a single pixel.
        parts = min(self.options.accumulate, max(len(x) // 2, 1))
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

    def _replay(self, defense: ReplayingDefense, x: Tensor, y: Tensor, targets: Tensor | None, sums: Sums) -> None:
        replays_left = defense.replays

        def step(x_adv: Tensor) -> None:
            nonlocal replays_left
            replays_left -= 1
            self.optimizer.zero_grad(set_to_none=True)
            for rows in self.parts(x):
                some = None if targets is None else targets[rows]
                loss = defense.outer(self.trainee, x[rows], x_adv[rows], y[rows], some)
                (loss.value * (len(rows) / len(x))).backward()  # type: ignore[no-untyped-call]
                if not replays_left:
                    _add(sums, len(rows), loss)
            self._descend()

        self.carried = defense.replay(x, self.carried, step)

    def _descend(self) -> None:
        if self.options.clip_grad:
            nn.utils.clip_grad_norm_(self.trainee.network.parameters(), self.options.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.trainee.network)


def _add(sums: Sums, images: int, loss: Loss) -> None:
    sums.add(images, loss.value.detach(), loss.clean_correct, loss.robust_correct)


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

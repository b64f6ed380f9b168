"""The training loop: one for every defence, and resumable when killed."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustmaps.attacks import Attack
from robustmaps.data import Dataset, batches, place
from robustmaps.defenses import Defense
from robustmaps.engine import ranks
from robustmaps.engine.calling import network_logits, to_channels_last, trains_in_channels_last
from robustmaps.engine.device import float32_products, resolve_device
from robustmaps.engine.errors import InputError, Interrupted
from robustmaps.engine.modes import hidden_modules, modes_restored, move
from robustmaps.engine.progress import Progress, Watcher
from robustmaps.engine.random import derive_seed, stream
from robustmaps.engine.ranks.agreeing import any_rank
from robustmaps.engine.ranks.sharing import share_buffers
from robustmaps.engine.view import AttackEngine, ViewOptions
from robustmaps.evaluation import evaluate
from robustmaps.training._average import AveragedWeights
from robustmaps.training._data_wait import Waiting
from robustmaps.training._forms import Forms, choose_forms, choose_stages
from robustmaps.training._growth import Earlier, measure_statistics
from robustmaps.training._options import TrainOptions
from robustmaps.training._overfitting import PROBED_IMAGES, has_overfitted, tell_of_overfitting, withstanding
from robustmaps.training._run_folder import BEFORE_ENLARGING, RunFolder, clean_score, validation_score
from robustmaps.training._saving import Checkpoints, on_host
from robustmaps.training._state import State, Sums, check_settings, settings
from robustmaps.training._stepper import BatchTrainer
from robustmaps.training._trainee import Trainee
from robustmaps.training._weights import check_writable
from robustmaps.training.loggers._open import Loggers

_REPORT_EVERY_S = 0.5
_STATISTICS_BATCHES = 32


class Diverged(RuntimeError):  # noqa: N818 - named after the event
    """The loss became NaN or infinite; the last checkpoint is from before."""


class Loop:
    """A run in progress; arguments as for `fit`."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        defense: Defense,
        options: TrainOptions,
        validation_attack: Attack | None,
        folder: RunFolder | None,
        description: Mapping[str, str],
        watcher: Watcher,
        should_stop: Callable[[], bool],
        forms: Forms | None,
        earlier: Sequence[Earlier] = (),
    ) -> None:
        self.device = resolve_device(options.device)
        for hidden in hidden_modules(model):
            warnings.warn(
                f"the network keeps {hidden} where PyTorch does not see it: it is neither trained nor saved; use "
                "nn.ModuleList, nn.ModuleDict or a plain attribute",
                stacklevel=3,
            )
        self.networks = [*(one.model for one in earlier), model]
        self.untils = [one.until for one in earlier]
        move(model, self.device)
        # The usual batch size, for which the network is compiled.
        self.part = math.ceil(options.batch_size / options.accumulate)
        if options.batch_size < ranks.size():
            raise InputError(
                f"batch_size={options.batch_size}: smaller than the number of processes, {ranks.size()}, which share "
                "each batch; start fewer, or choose larger batches"
            )
        self.own = math.ceil(self.part / ranks.size())
        self.usual = data.train.subset(torch.arange(min(self.own, len(data.train)))).tensors()[0].to(self.device)
        self.validation_attack = _stopping_early(validation_attack)
        self.forms = forms or choose_forms(model, data, defense, options, self.validation_attack, self.usual)
        self.data, self.defense, self.options = data, defense, options
        self.average: AveragedWeights | None = None
        self._use(self.networks[0])
        self.placed = place(data, self.device, options.memory_share)
        self.train = self.placed.train
        if folder is not None:
            check_writable(model)
        self.folder = folder
        self.watcher, self.should_stop = watcher, should_stop
        # A last batch of one image has no batch statistics if the map is a single pixel.
        self.drop_last = len(self.train) > 1 and len(self.train) % options.batch_size == 1
        whole, rest = divmod(len(self.train), options.batch_size)
        self.steps = whole + (rest > 0 and not self.drop_last)
        self.state, self.sums = State(), Sums(self.device)
        self.checkpoints = Checkpoints(folder, description, options.epochs, options.checkpoint_every_s)
        self.reported = time.monotonic()
        self.settings = settings(model, data, defense, options, validation_attack, earlier)

    def _use(self, model: nn.Module) -> None:
        """Train this network from now on, with the weights that it has; averaged weights stay as they are."""
        options = self.options
        move(model, self.device)
        if options.ema or options.swa:
            before = self.average
            self.average = AveragedWeights(model, options.ema or None) if before is None else before.moved(model)
        shared = _shares_statistics(model, options)
        stages = () if shared else choose_stages(model, options, self.usual, self.own)
        form = self.forms.attack.form
        how = ViewOptions(precision=form.precision, compile=form.compile and not stages, stages=bool(stages))
        self.engine = AttackEngine(model, how)
        channels_last = self.engine.settle(self.usual[:8]).channels_last and trains_in_channels_last(model, self.device)
        if channels_last:
            to_channels_last(model)
            if self.average is not None:
                to_channels_last(self.average.model)
        self.model = model
        form = self.forms.training.form
        compiled = form.compile and not stages and not shared
        self.trainee = Trainee(
            model, form.precision, compiled, self.own, channels_last=channels_last, stages=stages, shared=shared
        )
        self.average_engine = (
            self.engine if self.average is None else AttackEngine(self.average.model, self.engine.options)
        )
        each_step = self.average if options.ema else None
        self.stepper = BatchTrainer(self.trainee, self.engine, self.defense, options, self.data.num_classes, each_step)
        self.stepper.votes = self._votes
        self.optimizer = self.stepper.optimizer

    @property
    def grown(self) -> bool:
        """Whether the network that is trained is the last one, which is kept."""
        return self.state.network == len(self.untils)

    def run(self, loggers: Loggers) -> None:
        """Train to the end."""
        with self.checkpoints, float32_products(self.device, tf32=self.engine.options.precision != "fp32"):
            while self.state.epoch < self.options.epochs:
                if self.state.epoch:  # before a step, so that who stops here stops at the same step after a kill
                    self._stop(any_rank(self.should_stop()))
                while not self.grown and self.state.epoch >= self.untils[self.state.network]:
                    self._grow()
                self._train_epoch()
                record = self._close_epoch()
                # A run that is killed before its checkpoint is written makes the epoch again.
                self.checkpoints.after(partial(loggers.write, record))

    def _grow(self) -> None:
        """Go on with the next network: with the weights, their average and the optimizer's state of the one before.

        Larger maps have other means and variances, so the batch-norms' statistics are measured again: first on clean
        images, or the attack would meet a network that it can't harm further; then on what the defence trains on.
        """
        before, optimizer, carried = self.model, self.optimizer.state_dict(), self.stepper.carried
        self.state.network += 1
        model = self.networks[self.state.network]
        model.load_state_dict(before.state_dict())
        self._use(model)
        self.optimizer.load_state_dict(optimizer)
        self.stepper.carried = carried
        averaged = [] if self.average is None or not self.average.steps else [self.average.model]
        for network in (model, *averaged):
            network.train()
            drawn = self._some_batches("enlarging", _STATISTICS_BATCHES)
            clean = (partial(network_logits, x=x[rows]) for x, _ in drawn for rows in self.stepper.parts(x))
            measure_statistics(network, clean)
            self._measure_statistics(network, "enlarging")
            network.train(network is model)
        before.to("cpu")
        number = f"network {self.state.network + 1} of {len(self.networks)}"
        self.log(f"enlarged after epoch {self.state.epoch}: {number}, batch-norm statistics measured again")

    def _train_epoch(self) -> None:
        state, options = self.state, self.options
        self.trainee.train()
        began, before, first = time.perf_counter(), state.epoch_seconds, state.step
        waited_before = state.data_s
        self.reported = time.monotonic()
        remaining = Waiting(
            batches(
                self.train,
                options.batch_size,
                seed=options.seed,
                epoch=state.epoch,
                augmentation=self.data.augmentation,
                extra=self.placed.extra,
                device=self.device,
                start_step=state.step,
                drop_last=self.drop_last,
                workers=options.workers if self.placed.streamed else 0,
                own=self.stepper.reads,
            )
        )
        for x, y in remaining:
            total = min(options.batch_size, len(self.train) - state.step * options.batch_size)
            self.stepper(x, y, total, state.epoch, state.step, self.steps, self.sums)
            state.step += 1
            elapsed = time.perf_counter() - began
            state.epoch_seconds, state.data_s = before + elapsed, waited_before + remaining.seconds
            stop, report, save = self.stepper.elected if ranks.size() > 1 else self._votes()
            if report or state.step == self.steps:
                self.reported = time.monotonic()
                self.watcher(self._progress(elapsed / (state.step - first)))
            if save:
                self.save()
            self.checkpoints.poll()
            self._stop(stop)

    def _votes(self) -> tuple[bool, bool, bool]:
        """Whether to stop, to report, and to save; which any of the ranks can cause."""
        now = time.monotonic()
        report = now - self.reported >= _REPORT_EVERY_S
        return self.should_stop(), report and ranks.is_main(), self.checkpoints.due() and ranks.is_main()

    def _progress(self, step_s: float) -> Progress:
        state, options = self.state, self.options
        figures = self._finite_figures()
        steps_left = (options.epochs - state.epoch) * self.steps - state.step
        validations_left = math.ceil((options.epochs - state.epoch) / options.validate_every)
        validation_s = next((r["validation_s"] for r in reversed(state.history) if "validation_s" in r), 0.0)
        return Progress(
            f"epoch {state.epoch + 1}/{options.epochs}",
            state.step,
            self.steps,
            "steps",
            {**figures, "images_per_s": options.batch_size / step_s, "data_share": state.data_share},
            steps_left * step_s + validations_left * validation_s,
        )

    def _close_epoch(self) -> dict[str, Any]:
        state, options = self.state, self.options
        last = state.epoch + 1 == options.epochs
        record: dict[str, Any] = {
            "epoch": state.epoch + 1,
            **({} if self.grown else {BEFORE_ENLARGING: 1}),
            "lr": self.optimizer.param_groups[0]["lr"],
            **{f"train_{name}": value for name, value in self._finite_figures().items()},
            "train_s": state.epoch_seconds,
            "images_per_s": self.sums.images / max(state.epoch_seconds, 1e-9),
            "data_s": state.data_s,
            "data_share": state.data_share,
        }
        self._average_epoch()
        share_buffers(self.model)
        if self.average is not None:
            share_buffers(self.average.model)
        if getattr(self.defense, "single_step", False):
            record.update(self._look_for_overfitting(record))
        score: list[float] = []
        if len(self.data.validation) and (last or (state.epoch + 1) % options.validate_every == 0):
            score = self._validate(record)
        state.history.append(record)
        state.seconds += state.epoch_seconds + record.get("validation_s", 0.0)
        state.epoch, state.step, state.epoch_seconds, state.data_s = state.epoch + 1, 0, 0.0, 0.0
        self.sums = Sums(self.device)
        self.checkpoints.judge(state, score, clean_score(record), self.judged)
        if self.checkpoints.due_after(state.epoch):
            self.save()
        self.log(" ".join(f"{name}={value:.4g}" for name, value in record.items()))
        return record

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved as best."""
        return self.model if self.average is None or not self.average.steps else self.average.model

    def _average_epoch(self) -> None:
        """Add the epoch's weights to the plain mean, once, even if the run was stopped during validation."""
        due = self.state.epoch + 1 - math.floor(self.options.swa * self.options.epochs)
        if self.average is None or not self.options.swa or self.average.steps >= due:
            return
        self.average.update(self.model)
        self._measure_statistics(self.average.model, "statistics", self.state.epoch + 1)
        self.average.model.eval()

    def _measure_statistics(self, network: nn.Module, purpose: str, done: int | None = None) -> None:
        """Set a network's batch-norm statistics to their mean over what the defence trains on after some epochs.

        The attacks work against the network that is trained, as they do in training.
        """
        defense = self.stepper.defense_at(self.state.epoch if done is None else done, self.steps)
        generator = stream(self.options.seed, purpose, self.state.epoch, device=self.device)
        drawn = self._some_batches(purpose, _STATISTICS_BATCHES)
        first = next(drawn)
        with self.engine.view(first[0]) as view:
            # Without weight perturbation, if any, since the network is used without it.
            loss = getattr(defense, "defense", defense).loss
            passes = (
                partial(loss, x=x[rows], y=y[rows], view=view, generator=generator)
                for x, y in chain([first], drawn)
                for rows in self.stepper.parts(x)
            )
            measure_statistics(network, passes)

    def _some_batches(self, purpose: str, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A few training batches, augmented as in training but from their own random stream."""
        drawn = batches(
            self.train,
            self.options.batch_size,
            seed=derive_seed(self.options.seed, purpose),
            epoch=self.state.epoch,
            augmentation=self.data.augmentation,
            extra=self.placed.extra,
            device=self.device,
            drop_last=self.drop_last,
            workers=self.options.workers if self.placed.streamed else 0,
        )
        return islice(drawn, count)

    def _look_for_overfitting(self, record: Mapping[str, Any]) -> dict[str, Any]:
        few = self._some_batches("overfitting", math.ceil(PROBED_IMAGES / self.options.batch_size))
        x, y = (torch.cat(parts)[:PROBED_IMAGES] for parts in zip(*few, strict=True))
        # During the budget's warm-up, the single step's average budget was that of the middle of the epoch.
        defense = self.stepper.defense_at(self.state.epoch + 0.5, self.steps)
        generator = stream(self.options.seed, "overfitting", self.state.epoch, device=self.device)
        with modes_restored(self.model), self.engine.view(x) as view:
            withstood = withstanding(view, x, y, defense, generator, self.part)
        warm = [r["train_pgd_accuracy"] for r in self.state.history if r["epoch"] > self.options.eps_warmup]
        overfitted = has_overfitted(record["train_robust_accuracy"], withstood, warm, self.data.num_classes)
        if overfitted:
            tell_of_overfitting(self.defense, record, withstood)
            self.log("catastrophic overfitting")
        return {"train_pgd_accuracy": withstood, "catastrophic_overfitting": overfitted}

    def _validate(self, record: dict[str, Any]) -> list[float]:
        """Write the validation figures into the record; return the score that epochs are compared by."""

        def watch(progress: Progress) -> None:
            self.watcher(replace(progress, phase=f"epoch {self.state.epoch + 1}/{self.options.epochs} validation"))
            if ranks.size() == 1:
                self._stop(self.should_stop())

        attacks = [] if self.validation_attack is None else [self.validation_attack]
        evaluation = evaluate(
            self.judged,
            *self.data.validation.tensors(),
            attacks,
            batch_size=2 * self.part,
            seed=derive_seed(self.options.seed, "validation"),
            engine=self.engine if self.judged is self.model else self.average_engine,
            checks=False,
            watcher=watch,
        )
        for doubt in evaluation.warnings:  # such as logits that are NaN
            self.log(f"validation: {doubt}")
        clean, robust = evaluation.clean_accuracy.value, evaluation.robust_accuracy.value
        record["validation_clean_accuracy"] = clean
        if attacks:
            record["validation_robust_accuracy"] = robust
        record["validation_s"] = evaluation.seconds
        return list(validation_score(record) or ())

    def _finite_figures(self) -> dict[str, float]:
        figures = self.sums.figures()
        if not math.isfinite(figures["loss"]):
            place = f"epoch {self.state.epoch + 1}, step {self.state.step}"
            self.log(f"diverged at {place}")
            forms = (self.forms.attack.form, self.forms.training.form)
            hint = " or precision fp32" if any(form.precision == "bf16" for form in forms) else ""
            raise Diverged(
                f"the loss became {figures['loss']} at {place}; try a smaller lr than {self.options.lr:g}{hint}"
            )
        return figures

    def _stop(self, asked: bool) -> None:
        if asked:
            if self.checkpoints.place != (self.state.epoch, self.state.step):
                self.save()
            self.checkpoints.wait()
            place = f"epoch {self.state.epoch + 1} of {self.options.epochs}, step {self.state.step} of {self.steps}"
            self.log(f"stopped at {place}")
            raise Interrupted(place)

    def log(self, text: str) -> None:
        """Add a line to the run's log."""
        if self.folder is not None:
            self.folder.log(text)

    def save(self) -> None:
        """Write a checkpoint beside the next steps, once the one before is written; not if the loss is no number."""
        if self.folder is not None:
            self._finite_figures()
        self.checkpoints.save(self.state, self._checkpoint, "model" if self.judged is self.model else "average")

    def _checkpoint(self) -> dict[str, Any]:
        """All that a run goes on from but the weights that it keeps, as it is now, in host memory."""
        average = self.average
        return on_host(
            {
                "settings": self.settings,
                "forms": self.forms.to_dict(),
                "state": asdict(self.state),
                "sums": self.sums.to_dict(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if average is None else average.model.state_dict(),
                "average_steps": 0 if average is None else average.steps,
                "carried": self.stepper.carried,
                "random": torch.get_rng_state(),
                "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            }
        )

    def load(self, folder: RunFolder, checkpoint: Mapping[str, Any]) -> None:
        """Resume the run in the folder from its checkpoint."""
        check_settings(folder.path, checkpoint["settings"], self.settings)
        self.state = State(**checkpoint["state"])
        if self.state.network:
            self._use(self.networks[self.state.network])
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint["average"])
            self.average.steps = checkpoint["average_steps"]
        self.stepper.carried = checkpoint["carried"]
        self.sums.load(checkpoint["sums"])
        torch.set_rng_state(checkpoint["random"].cpu())
        if checkpoint["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(checkpoint["random_cuda"].cpu(), self.device)
        self.checkpoints.load(checkpoint, self.state, self.judged)


def _shares_statistics(model: nn.Module, options: TrainOptions) -> bool:
    """Whether batch-norms take their statistics from all ranks."""
    if options.sync_batch_norm and not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise InputError("sync_batch_norm: the network has no batch-norm; leave it out")
    return options.sync_batch_norm and ranks.size() > 1


def _stopping_early(attack: Attack | None) -> Attack | None:
    """The attack with early stopping, if it supports it."""
    settings: Any = attack
    if is_dataclass(settings) and hasattr(settings, "early_stop"):
        settings = replace(settings, early_stop=True)  # type: ignore[type-var]
    return cast(Attack | None, settings)

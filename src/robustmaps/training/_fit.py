"""The function `fit`: train a network."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustmaps.attacks import Attack
from robustmaps.data import Dataset
from robustmaps.defenses import Defense
from robustmaps.defenses import validation_attack as recommended_validation_attack
from robustmaps.engine import ranks
from robustmaps.engine.device import describe_environment, resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import short_hash
from robustmaps.engine.measured import Measured
from robustmaps.engine.modes import check_changeable, check_values, modes_restored, set_evaluating
from robustmaps.engine.numbers import counted
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.engine.random import derive_seed
from robustmaps.engine.ranks.agreeing import compare, from_main
from robustmaps.evaluation import weights_sha256
from robustmaps.training._forms import Forms, kept_forms
from robustmaps.training._growth import Earlier, check_earlier
from robustmaps.training._loop import Loop
from robustmaps.training._options import TrainOptions
from robustmaps.training._run_folder import RunFolder, is_chosen
from robustmaps.training._schedule import parse_schedule
from robustmaps.training._state import settings
from robustmaps.training.loggers._open import chosen_loggers, opened_loggers
from robustmaps.training.loggers._registry import Logger


@dataclass(frozen=True)
class FitResult:
    """The result of training.

    Attributes:
        history: training and validation figures per epoch.
        best_epoch: the epoch, from 1, whose weights the network now has.
        seconds: time of training and validation, over all calls.
        folder: the run folder, if any.
        forms: how its passes were computed.
    """

    history: tuple[Mapping[str, Any], ...]
    best_epoch: int
    seconds: float
    folder: Path | None
    forms: Forms

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" in {self.folder}"
        return f"FitResult({counted(len(self.history), 'epoch')}, best {self.best_epoch}, {self.seconds:.3g} s{where})"


def fit(
    model: nn.Module,
    data: Dataset,
    defense: Defense,
    options: TrainOptions | None = None,
    *,
    validation_attack: Attack | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    description: Mapping[str, str] | None = None,
    watcher: Watcher = ignore,
    should_stop: Callable[[], bool] = lambda: False,
    forms: Forms | None = None,
    loggers: Sequence[Logger] = (),
    earlier: Sequence[Earlier] = (),
) -> FitResult:
    """Train a network in place; it ends with the weights of the best epoch, in evaluation mode.

    The best epoch has the highest accuracy on the validation images, under the validation attack if there is one; the
    earliest wins a tie. Without validation images it is the last. The test images are never used.

    The same arguments give the same weights, bit for bit on the CPU with the same number of threads, even if the run is
    killed and resumed. PyTorch's global random state is restored.

    Args:
        model: from images in [0, 1] to logits; moved to the chosen device.
        data: provides the splits ``train`` and ``validation`` and the ``augmentation``.
        defense: the loss to train with.
        options: the hyper-parameters.
        validation_attack: the attack of the validation (default: PGD with the budget of the defence's attack).
        out: the run folder; None to write nothing.
        resume: resume from the checkpoint in ``out``, if any.
        description: strings stored in the header of ``best.safetensors``.
        watcher: called about twice a second.
        should_stop: called after each step; True saves a checkpoint and raises `Interrupted`.
        forms: how to compute instead of choosing by the options; a run that is resumed keeps what it began with.
        loggers: receive the figures of every epoch from now on, beside those that the options name; one that fails gets
            a warning and nothing more. They are closed at the end.
        earlier: smaller networks to train first, in order; each hands its weights, their average and the optimizer's
            state on to the next and at last to ``model``, from whose epochs alone the best is chosen. Their weights
            are used up; the first one's are those that training begins with.

    Raises:
        InputError: there are no training images, the network has no values or nothing to train, or ``out`` contains a
            run and ``resume`` is False or its settings differ.
        Interrupted: ``should_stop`` returned True.
        Diverged: the loss became NaN or infinite.
    """
    options = options or TrainOptions()
    if len(data.train) == 0:
        raise InputError(f"{data.name}: found no training images; expected at least one")
    check_changeable(model)
    check_values(model)
    check_earlier(model, earlier, options.epochs)
    try:
        model.train(model.training)
    except NotImplementedError as error:
        raise InputError(
            "the network is an exported program, whose mode is fixed: it can be evaluated, not trained; pass the "
            "network that was exported"
        ) from error
    attack = validation_attack or recommended_validation_attack(defense.attack)
    if ranks.size() > 1:
        texts = settings(model, data, defense, options, attack, earlier)
        others = {
            "weights": weights_sha256(earlier[0].model if earlier else model),
            "labels": short_hash(data.train.labels.tolist()),
        }
        compare("configuration, network or data", {**texts, **others})
    for what in _without_effect(defense, options):
        warnings.warn(what, stacklevel=2)
    folder = None if out is None else RunFolder(out)
    rows = chosen_loggers(options.loggers, None if folder is None else folder.path)
    with ExitStack() as stack:
        if folder is not None:
            folder.claim()
            stack.enter_context(folder.locked())
            if folder.begun and not resume:
                raise InputError(f"{folder.path} already contains a run; resume it or choose another folder")
        checkpoint, environment = _begun(folder, resolve_device(options.device))
        if checkpoint is not None:
            forms = kept_forms(checkpoint, environment, options)
        # Undo the loop's channels-last order and gradients.
        stack.callback(model.zero_grad, set_to_none=True)
        stack.callback(_make_contiguous, model)
        loop = Loop(
            model,
            data,
            defense,
            options,
            attack,
            folder,
            description or {},
            watcher,
            should_stop,
            forms,
            earlier,
        )
        stack.enter_context(torch.random.fork_rng([loop.device] if loop.device.type == "cuda" else []))
        stack.enter_context(modes_restored(model))
        own = (ranks.rank(),) if ranks.rank() else ()  # such as of dropout, which draws for the images that it sees
        torch.manual_seed(derive_seed(options.seed, "fit", *own))
        if folder is not None:
            if checkpoint is not None:
                loop.load(folder, checkpoint)
                if own:
                    place = (loop.state.epoch, loop.state.step)
                    torch.manual_seed(derive_seed(options.seed, "fit", *own, *place))
            kinds = {"precision": loop.forms.attack.form.precision, "forms": loop.forms.to_dict()}
            folder.write_environment({**describe_environment(loop.device), **kinds})
            loop.log(f"computing in {loop.forms}")
            loop.log(f"training from epoch {loop.state.epoch + 1}, step {loop.state.step} of {loop.steps}")
        logged = opened_loggers(
            rows,
            loggers,
            None if folder is None else folder.path,
            loop.settings,
            lambda: loop.state.history,
            loop.device,
        )
        with logged as opened:
            loop.run(opened)
            opened.summarise(_kept_figures(loop.state.history, loop.state.best_epoch, len(data.validation)))
        model.load_state_dict(loop.checkpoints.best)
        if folder is not None:
            folder.log_finish(loop.state.best_epoch, chosen=is_chosen(loop.state.history))
    # In training mode batch-norms would predict a single image from its own statistics.
    set_evaluating(model)
    return FitResult(
        tuple(loop.state.history),
        loop.state.best_epoch,
        loop.state.seconds,
        None if folder is None else folder.path,
        loop.forms,
    )


def _kept_figures(history: Sequence[Mapping[str, Any]], epoch: int, images: int) -> dict[str, float]:
    """The validation figures of the kept epoch with the ends of their intervals, for loggers."""
    found: dict[str, float] = {"epoch": epoch, "best_epoch": epoch}
    for kind in ("clean", "robust"):
        value = history[epoch - 1].get(f"validation_{kind}_accuracy")
        if value is not None:
            name, measured = f"best_validation_{kind}_accuracy", Measured.wilson(value, images)
            found |= {name: value, f"{name}_low": measured.low, f"{name}_high": measured.high}
    return found


def _begun(folder: RunFolder | None, device: torch.device) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The checkpoint to resume from, if any, and the run's environment, as rank 0 reads them."""

    def read() -> tuple[dict[str, Any] | None, dict[str, Any]]:
        if folder is None or not folder.begun:
            return None, {}
        return folder.load_last(device), folder.read_environment()

    return from_main(read)


def _without_effect(defense: Defense, options: TrainOptions) -> Iterator[str]:
    """Warnings about options without effect."""
    last = math.nextafter(options.epochs, 0)
    if options.schedule.startswith("step:") and parse_schedule(options.schedule, options.epochs)(last) == 1:
        yield (
            f"schedule={options.schedule}: the first step is beyond the {options.epochs} epochs, so the learning rate "
            "never changes; 'step' places its steps automatically"
        )
    if options.eps_warmup and defense.attack is None:
        yield f"eps_warmup={options.eps_warmup:g}: {defense.name} has no budget to warm up"
    elif options.eps_warmup > options.epochs:
        yield (
            f"eps_warmup={options.eps_warmup:g}: the budget will not reach its full size in {options.epochs} epochs; "
            "use a smaller value"
        )
    if options.optimizer != "sgd" and options.momentum != TrainOptions.momentum:
        yield f"momentum={options.momentum:g}: has no effect with {options.optimizer}, only with sgd"


def _make_contiguous(model: nn.Module) -> None:
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

"""The forms in which a run computes its attacks and its training passes: chosen at its beginning, then kept."""

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustmaps import attacks
from robustmaps.attacks import Attack
from robustmaps.data import Dataset
from robustmaps.defenses import Defense
from robustmaps.engine.calling import trains_in_channels_last
from robustmaps.engine.device import float32_products
from robustmaps.engine.errors import InputError
from robustmaps.engine.memory import free_bytes
from robustmaps.engine.numbers import human
from robustmaps.engine.speed import Choice, Form, Pass, attack_pass, choose
from robustmaps.engine.text import first_line
from robustmaps.engine.views.stages import Stage, find_stages
from robustmaps.training._options import TrainOptions
from robustmaps.training._trainee import Trainee

# Forward passes that an attack takes of an image, where it does not say.
_USUAL_PASSES = 20.0
# Forward passes that one backward pass goes through, of clean and of attacked images.
_GRAPHS = 2


@dataclass(frozen=True)
class Forms:
    """How a run computes.

    Attributes:
        attack: the passes of attacks, in training and validation.
        training: the passes that the optimizer steps on.
    """

    attack: Choice
    training: Choice

    def __str__(self) -> str:
        if self.attack == self.training:
            return str(self.attack)
        return f"attacks in {self.attack}, training passes in {self.training}"

    def to_dict(self) -> dict[str, str]:
        """For checkpoints and records, without reasons."""
        return {"attack": str(self.attack.form), "training": str(self.training.form)}

    @staticmethod
    def of(values: Mapping[str, Any]) -> "Forms":
        """From the result of `to_dict`.

        Raises:
            InputError: there is no such form.
        """
        return Forms(*(Choice(Form.of(str(values.get(name, "fp32")))) for name in ("attack", "training")))


def kept_forms(checkpoint: Mapping[str, Any], environment: Mapping[str, Any], options: TrainOptions) -> Forms:
    """The forms of a run that is resumed; checkpoints of before have none, and the precision stands beside them."""
    if "forms" in checkpoint:
        return Forms.of(checkpoint["forms"])
    precision = options.precision if options.precision != "auto" else environment.get("precision", "fp32")
    form = Form.of(str(precision))
    return Forms(*(2 * [Choice(Form(form.precision, options.compile))]))


def choose_forms(
    model: nn.Module, data: Dataset, defense: Defense, options: TrainOptions, validation: Attack | None, x: Tensor
) -> Forms:
    """Choose how a run computes, by timing its passes if they are many and ``precision`` is ``auto``.

    Args:
        model: the network, on its device; it is not changed.
        data: the images that count.
        defense: the defence.
        options: the hyper-parameters.
        validation: the attack of the validation.
        x: the images of a usual batch (N, C, H, W) on the device.

    Raises:
        InputError: the precision is not available, or nothing can compile here.
    """
    y = torch.zeros(len(x), dtype=torch.long, device=x.device)
    epochs, validations = options.epochs, math.ceil(options.epochs / options.validate_every)
    attacked = epochs * len(data.train) * _gradients(defense.attack)
    attacked += validations * len(data.validation) * _gradients(validation)
    trained = epochs * len(data.train) * getattr(defense, "replays", 1)
    asked = (options.precision, options.compile, model, x, y)
    return Forms(
        choose(*asked, attacked / len(x), what="attack", make=attack_pass(model)),
        choose(*asked, trained / len(x), what="training", make=TrainingPass(model)),
    )


def choose_stages(model: nn.Module, options: TrainOptions, x: Tensor, images: int) -> tuple[Stage, ...]:
    """The stages that run again in backward passes; none if memory allows that, or the network can't be divided.

    Args:
        model: the network, on its device.
        options: the hyper-parameters.
        x: an image or a few (N, C, H, W) on the device.
        images: how many are differentiated at once.

    Warns:
        UserWarning: what was decided, unless it is as usual.
    """
    if options.checkpoint_stages == "off" or options.compile:
        return ()
    asked = options.checkpoint_stages == "on"
    try:
        stages, kept = find_stages(model, x[:1])
    except Exception as error:  # noqa: BLE001 - the network's own code runs, and may raise anything
        if asked:
            warnings.warn(f"no stages are checkpointed: {first_line(error)}", stacklevel=4)
        return ()
    needed, free = kept * images, free_bytes(x.device)
    if not stages:
        if asked:
            warnings.warn("no stages are checkpointed: the network can't be divided", stacklevel=4)
        return ()
    if asked:
        return stages
    if free is None or needed * _GRAPHS <= free:
        return ()
    warnings.warn(
        f"a step keeps {human(needed, 'B')} for its backward pass, and {human(free, 'B')} are free: {len(stages)} "
        "stages run again in backward passes instead, which takes longer (checkpoint_stages); accumulate needs less "
        "memory, too",
        stacklevel=4,
    )
    return stages


def _gradients(attack: Attack | None) -> float:
    """Gradients that an attack takes of an image; one is worth two forward passes."""
    if attack is None:
        return 0.0
    known = attacks.passes(attack)
    return (_USUAL_PASSES if known is None else known) / 2


@dataclass(frozen=True)
class TrainingPass:
    """Makes a training pass of a copy of a network."""

    model: nn.Module

    def __call__(self, form: Form) -> Pass:
        network = copy.deepcopy(self.model).train()
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("the network has no parameter to train")

        def one(x: Tensor, y: Tensor) -> None:
            with float32_products(x.device, tf32=form.precision != "fp32"):
                if len(x) not in made:
                    made[len(x)] = Trainee(network, form.precision, form.compile, len(x), channels_last=last)
                trainee = made[len(x)]
                torch.autograd.grad(F.cross_entropy(trainee(x), y), parameters, allow_unused=True)

        made: dict[int, Trainee] = {}
        last = trains_in_channels_last(network, parameters[0].device)
        return one

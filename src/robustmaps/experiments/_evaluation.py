"""From a run folder or a checkpoint to an evaluation."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from robustmaps import models
from robustmaps.attacks import FGSM, PGD, Attack
from robustmaps.data import Dataset
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import sha256
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.evaluation import Evaluation, evaluate
from robustmaps.experiments._config import AttackConfig, DataConfig
from robustmaps.experiments._run import DESCRIPTION, load_data
from robustmaps.training import RunFolder, load_weights


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, and what its file says of it.

    Attributes:
        path: the weights' file.
        model: the network, on the CPU.
        data: the images it was trained on, as a configuration.
        norm, eps: the budget it was trained for.
    """

    path: Path
    model: nn.Module
    data: DataConfig
    norm: str
    eps: float


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation and where it was written."""

    evaluation: Evaluation
    path: Path


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a run folder's best weights, or a weights file of ours.

    Raises:
        InputError: there is no such file, or it does not describe its network.
    """
    weights_path = RunFolder(path).best if Path(path).is_dir() else Path(path)
    if not weights_path.exists():
        hint = "it is no finished run; train it to the end first" if Path(path).is_dir() else "there is no such file"
        raise InputError(f"{path}: {hint} (expected {weights_path.name})")
    weights, description = load_weights(weights_path)
    try:
        about: dict[str, Any] = json.loads(description[DESCRIPTION])
        model = models.create(**about["model"])
        data = DataConfig(**about["data"])
        norm, eps = str(about["norm"]), float(about["eps"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"{weights_path}: its header does not describe a network written by robustmaps") from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{weights_path}: the weights don't fit {about['model']['name']} ({error})") from error
    return Checkpoint(weights_path, model, data, norm, eps)


def create_attack(config: AttackConfig, norm: str, eps: float) -> Attack:
    """The attack that the configuration names; norm and eps are used where it leaves them out."""
    budget: dict[str, Any] = {"norm": config.norm or norm, "eps": config.eps or eps}
    if config.attack == "fgsm":
        return FGSM(**budget)
    return PGD(
        **budget,
        steps=config.steps,
        step_size=config.step_size,
        restarts=config.restarts,
        loss=config.loss,
        start="normal" if config.loss == "kl" else "uniform",
        early_stop=True,
    )


def evaluate_checkpoint(
    path: str | Path,
    attack: AttackConfig,
    *,
    data: str | Dataset | None = None,
    split: Literal["test", "validation"] = "test",
    samples: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,  # noqa: A002
    out: str | Path | None = None,
    watcher: Watcher = ignore,
    decoding: Callable[[int, int | None], None] | None = None,
) -> EvaluatedRun:
    """Attack a trained network and write the verdicts.

    Args:
        path: a run folder, or a weights file written by one.
        attack: what to attack with.
        data: other images than those it was trained on: a spec, or a loaded data set.
        split: which images.
        samples: how many, drawn evenly from the classes; None for all.
        batch_size: images attacked at once.
        seed: of the attack's random draws. The choice of images does not depend on it.
        device: where to compute.
        precision: of the attack: auto, fp32 or bf16. Verdicts are always float32.
        compile: run the attack through torch.compile.
        out: the file to write; by default one named after the settings, in the run folder's ``evaluation``.
        watcher: called as the work goes on.
        decoding: called while a data set is decoded for the first time.

    Raises:
        InputError: a bad checkpoint, bad settings, or images that don't fit the network.
    """
    checkpoint = open_checkpoint(path)
    if not isinstance(data, Dataset):
        config = checkpoint.data if data is None else replace(checkpoint.data, data=data)
        data = load_data(config, decoding)
    images = data.test if split == "test" else data.validation
    if len(images) == 0:
        raise InputError(f"{data.name}: the {split} split is empty")
    if samples is not None:
        images = images.subset(samples)
    chosen = create_attack(attack, checkpoint.norm, checkpoint.eps)
    x, y = images.tensors()
    evaluation = evaluate(
        checkpoint.model.to(resolve_device(device)),
        x,
        y,
        chosen,
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        compile=compile,
        watcher=watcher,
    )
    evaluation = replace(evaluation, checkpoint_sha256=sha256(checkpoint.path))
    target = (
        Path(out) if out is not None else RunFolder(checkpoint.path.parent).evaluations / _file_name(evaluation, split)
    )
    evaluation.save(target)
    return EvaluatedRun(evaluation, target)


def _file_name(evaluation: Evaluation, split: str) -> str:
    """Readable, and different for every setting, so that nothing overwrites another result."""
    decisive = [evaluation.attacks, evaluation.seed, evaluation.images_sha256, evaluation.checkpoint_sha256]
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
    budget = as_fraction(evaluation.eps).replace("/", "_")
    names = "+".join(attack["name"] for attack in evaluation.attacks)
    return f"{names}-{evaluation.norm}-{budget}-{split}{len(evaluation.verdicts)}-{digest}.json"

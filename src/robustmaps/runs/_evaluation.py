"""Evaluate a run, a checkpoint or a network in memory, and write the results."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from robustmaps.attacks import Attack, takes
from robustmaps.config import AttackConfig
from robustmaps.data import Dataset
from robustmaps.engine.device import resolve_device
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import atomic, short_hash, write_json
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.progress import Watcher, ignore
from robustmaps.evaluation import Evaluation, Identity, attack_settings, evaluate, images_sha256
from robustmaps.figures import plot_eps_curve
from robustmaps.networks import Checkpoint, choose_images, data_for, open_checkpoint
from robustmaps.runs._attacks import create_attacks
from robustmaps.runs._identity import place_for, write_present
from robustmaps.runs._robustbench import model_info


@dataclass(frozen=True)
class EvaluatedRun:
    """An evaluation and its files.

    Attributes:
        evaluation: the verdicts.
        path: the file of the verdicts.
        adversarials: the file of the adversarial examples, if requested.
        before: whether the file already existed, with the same settings.
    """

    evaluation: Evaluation
    path: Path
    adversarials: Path | None = None
    before: bool = False


@dataclass(frozen=True)
class EvaluatedCurve:
    """Evaluations at several budgets.

    Attributes:
        runs: one evaluation per radius, in ascending order.
        path: the JSON file of the curve.
        plot: the PNG file of the curve.
    """

    runs: tuple[EvaluatedRun, ...]
    path: Path
    plot: Path


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Attributes:
        data: a spec or a loaded data set, to use instead of the training data set.
        split: the split to use.
        samples: number of images, drawn evenly from the classes; None for all.
        batch_size: images per batch; None for as many as fit in memory.
        seed: seed of the attack's random draws; the choice of images does not depend on it.
        device: device to compute on.
        precision: precision of the attack: auto, fp32, tf32 (on CUDA) or bf16; verdicts are always float32.
        compile: compile the attack with torch.compile.
        save_adversarials: also write the adversarial examples.
        watcher: receives progress reports.
    """

    data: str | Dataset | None = None
    split: Literal["test", "validation"] = "test"
    samples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    save_adversarials: bool = False
    watcher: Watcher = ignore


def evaluate_checkpoint(
    checkpoint: str | Path | Checkpoint,
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedRun:
    """Attack a trained network and write the verdicts; a killed evaluation resumes from its last saved step.

    Args:
        checkpoint: a run folder, its weights file, or an opened checkpoint.
        attack: the attacks, at one radius.
        options: images, device and so on.
        out: the file to write; by default named after the settings, in the run folder's ``evaluation``.

    Raises:
        InputError: the checkpoint or a setting is invalid, the images don't fit the network, or another file is in the
            way.
    """
    work = _Work(checkpoint, options or Options())
    if len(attack.eps) > 1:
        raise InputError(f"eps={','.join(map(as_fraction, attack.eps))}: expected one radius; several make a curve")
    return work.run(attack, attack.eps[0] if attack.eps else work.checkpoint.eps, out=out)


def evaluate_curve(
    checkpoint: str | Path | Checkpoint,
    attack: AttackConfig,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
) -> EvaluatedCurve:
    """Evaluate at every radius of ``attack.eps``, and plot robust accuracy against the radius.

    A broken sample stays broken at every larger radius, so each evaluation attacks only the remaining samples.

    Args:
        checkpoint: see `evaluate_checkpoint`.
        attack: the attacks.
        options: images, device and so on.
        out: the JSON file to write; the plot is written next to it.

    Raises:
        InputError: as `evaluate_checkpoint`, or a radius occurs twice.
    """
    radii = sorted(attack.eps)
    if len(radii) < 2 or len(set(radii)) < len(radii):
        raise InputError(f"eps={','.join(map(as_fraction, attack.eps))}: expected two or more radii, each once")
    work = _Work(checkpoint, options or Options())
    runs: list[EvaluatedRun] = []
    for eps in radii:
        runs.append(work.run(attack, eps, smaller=tuple(runs)))
    points = [(run.evaluation.eps, run.evaluation.robust_accuracy) for run in runs]
    names = _names(attack)
    digest = short_hash([run.path.name for run in runs])
    evaluation = runs[0].evaluation
    name = f"curve-{names}-{evaluation.norm}-{work.options.split}{len(evaluation.verdicts)}-{digest}.json"
    path = Path(out) if out is not None else work.folder / name
    values = {
        "norm": evaluation.norm,
        "attack": attack.attack,
        "samples": len(evaluation.verdicts),
        "clean_accuracy": evaluation.clean_accuracy.to_dict(),
        "points": [
            {"eps": eps, "robust_accuracy": rate.to_dict(), "file": run.path.name}
            for (eps, rate), run in zip(points, runs, strict=True)
        ],
    }
    write_json(path, values)
    plot = path.with_suffix(".png")
    title = f"{work.checkpoint.name}: {names}, {len(evaluation.verdicts)} {work.options.split} images"
    plot_eps_curve(plot, [(0.0, evaluation.clean_accuracy), *points], evaluation.norm, title)
    return EvaluatedCurve(tuple(runs), path, plot)


class _Work:
    """A network on its device, and its images."""

    def __init__(self, checkpoint: str | Path | Checkpoint, options: Options) -> None:
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
        self.options = options
        self.folder = self.checkpoint.folder
        self.data = data_for(self.checkpoint, options.data, options.watcher)
        self.x, self.y = choose_images(self.data, options.split, options.samples)
        self.images = images_sha256(self.x, self.y)
        self.model = self.checkpoint.model.to(resolve_device(options.device))
        self.network = Identity.of(self.model, self.x.shape[1:])

    def run(
        self, config: AttackConfig, eps: float, *, smaller: Sequence[EvaluatedRun] = (), out: str | Path | None = None
    ) -> EvaluatedRun:
        """Evaluate at one radius, unless done before."""
        attacks = create_attacks(config, self.checkpoint.norm, eps)
        described = attack_settings(attacks)
        if out is not None:
            path = Path(out)
        else:
            named = self.folder / self._file_name(config, described, smaller)
            path = place_for(named, self.network, lambda file: [_partial(file, False), _partial(file, True)])
            write_present(self.folder, self.checkpoint.sha256, self.network, changed=path != named)
        images = path.with_suffix(".safetensors") if self.options.save_adversarials else None
        known = self._known(path, described)
        if known is not None and (images is None or images.exists()):
            return EvaluatedRun(known, path, images, before=True)
        evaluation = self._evaluate(attacks, path, images, smaller[-1] if smaller else None)
        evaluation.save(path)
        about = model_info(evaluation, self.checkpoint, self.data.name)
        write_json(path.with_name(f"{path.stem}.model_info.json"), about)
        for with_images in (False, True):
            shutil.rmtree(_partial(path, with_images), ignore_errors=True)
        return EvaluatedRun(evaluation, path, images)

    def _evaluate(
        self, attacks: Sequence[Attack], path: Path, images: Path | None, smaller: EvaluatedRun | None
    ) -> Evaluation:
        options = self.options
        state = _partial(path, images is not None)
        before = None if smaller is None else smaller.adversarials
        kept = None if images is None else _kept_images(state / "adversarials.npy", self.x, before)
        evaluation = evaluate(
            self.model,
            self.x,
            self.y,
            attacks,
            batch_size=options.batch_size,
            seed=options.seed,
            precision=options.precision,
            compile=options.compile,
            state=state,
            adversarials=kept,
            smaller=None if smaller is None else smaller.evaluation,
            watcher=options.watcher,
        )
        if images is not None and kept is not None:
            _save_adversarials(images, kept, self.y, evaluation)
        data = {"name": self.data.name, "fingerprint": self.data.fingerprint, "image_size": list(self.x.shape[2:])}
        return replace(evaluation, checkpoint_sha256=self.checkpoint.sha256, split=options.split, data=data)

    def _known(self, path: Path, described: Sequence[dict[str, Any]]) -> Evaluation | None:
        """The evaluation in the file, if it is of the same network, with the same settings and images."""
        if not path.exists():
            return None
        known = Evaluation.load(path)
        mine = (list(described), self.options.seed, self.images, self.checkpoint.sha256)
        same = (list(known.attacks), known.seed, known.images_sha256, known.checkpoint_sha256) == mine
        if not same or not self.network.matches(known.computes):
            raise InputError(f"{path}: contains another evaluation; name another file with --out, or delete it")
        return known

    def _file_name(
        self, config: AttackConfig, described: Sequence[dict[str, Any]], smaller: Sequence[EvaluatedRun]
    ) -> str:
        """A readable name, unique for each combination of settings, so that no result overwrites another."""
        radii = [run.evaluation.eps for run in smaller]
        digest = short_hash([described, self.options.seed, self.images, self.checkpoint.sha256, radii])
        budget = as_fraction(described[0]["eps"]).replace("/", "_")
        return f"{_names(config)}-{described[0]['norm']}-{budget}-{self.options.split}{len(self.x)}-{digest}.json"


def _names(config: AttackConfig) -> str:
    """The names of the attacks, for file names and titles."""
    version = "" if config.version in (None, "standard") else f"-{config.version}"
    return "+".join(name + version if "version" in takes(name) else name for name in config.names)


def _partial(path: Path, with_images: bool) -> Path:
    """The file of intermediate results of an unfinished evaluation.

    An evaluation without saved images can't be resumed by one that saves them, since earlier ones would be missing.
    """
    return path.with_name(f"{path.stem}{'.adversarials' if with_images else ''}.partial")


def _kept_images(path: Path, x: Tensor, before: Path | None) -> Tensor:
    """Memory-map a file of images, which survives the process.

    It is initialised with ``x`` and the adversarial examples at a smaller radius from the file ``before``.
    """
    if not path.exists():
        images = x.clone()
        if before is not None:
            found = safetensors.torch.load_file(before)
            images[found["sample"]] = found["image"]
        with atomic(path) as file:
            np.save(file, images.numpy(), allow_pickle=False)
    return torch.from_numpy(np.load(path, mmap_mode="r+", allow_pickle=False))


def _save_adversarials(path: Path, images: Tensor, y: Tensor, evaluation: Evaluation) -> None:
    """Write the adversarial examples and the indices of their samples."""
    broken = torch.from_numpy(evaluation.clean_correct & ~evaluation.robust_correct).nonzero().squeeze(1)
    tensors = {"sample": broken, "label": y[broken].contiguous(), "image": images[broken].contiguous()}
    about = {"norm": evaluation.norm, "eps": str(evaluation.eps), "images_sha256": evaluation.images_sha256}
    with atomic(path) as file:
        file.write(safetensors.torch.save(tensors, about))

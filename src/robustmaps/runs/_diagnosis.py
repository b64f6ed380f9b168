"""Diagnose a run, a checkpoint or a network in memory, and write the diagnosis."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from robustmaps import models
from robustmaps.data import Dataset, ImageSet
from robustmaps.defenses import Standard
from robustmaps.engine.device import resolve_device
from robustmaps.engine.files import short_hash
from robustmaps.engine.numbers import as_fraction
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.random import derive_seed
from robustmaps.engine.writing.outputs import claim, json_with
from robustmaps.evaluation import Diagnosis, Identity, diagnose, images_sha256
from robustmaps.networks import Checkpoint, choose_images, data_for, open_checkpoint, open_trained
from robustmaps.runs._identity import write_present
from robustmaps.training import TrainOptions, fit

# About a minute on one core, at 32 x 32 pixels.
_SURROGATE_IMAGES, _SURROGATE_EPOCHS = 3000, 10


@dataclass(frozen=True)
class DiagnosedRun:
    """A diagnosis and its file."""

    diagnosis: Diagnosis
    path: Path


def diagnose_checkpoint(
    checkpoint: str | Path | Checkpoint,
    *,
    data: str | Dataset | None = None,
    split: Literal["test", "validation"] = "test",
    samples: int | None = 200,
    image_size: int | None = None,
    channels: int | None = None,
    norm: str | None = None,
    eps: float | None = None,
    surrogate: str | Path | nn.Module | None = None,
    seed: int = 0,
    batch_size: int = 128,
    device: str = "auto",
    out: str | Path | None = None,
    watcher: Watcher = ignore,
) -> DiagnosedRun:
    """Check a trained network for signs that its robustness is not real, and write the results.

    Args:
        checkpoint: a run folder, its weights file, or an opened checkpoint.
        data: a spec or a loaded data set, to use instead of the training data set.
        split: the split to use.
        samples: number of images, drawn evenly from the classes; None for all.
        image_size: pixels a side to resize the images to; None for those of training.
        channels: of the images, 1 or 3; None for those of training.
        norm: the norm of the budget; None for that of training.
        eps: the radius of the budget; None for that of training.
        surrogate: source of adversarial examples, a network or what `open_trained` takes, such as a run; None trains a
            ResNet-8 on a few thousand training images, unless no image is left to try its examples on.
        seed: seed of all random draws.
        batch_size: images per batch.
        device: device to compute on.
        out: the file to write; by default named after the settings, in the run folder's ``evaluation``.
        watcher: receives progress reports.

    Raises:
        InputError: the checkpoint or a setting is invalid, the images don't fit the network, or another file is in the
            way.
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    if out is not None:
        _claim(Path(out))
    dataset = data_for(opened, data, watcher, image_size=image_size, channels=channels)
    x, y = choose_images(dataset, split, samples)
    norm, eps = norm or opened.norm, eps or opened.eps
    images = images_sha256(x, y)
    decisive = {"seed": seed, "images_sha256": images, "checkpoint_sha256": opened.sha256}
    name = f"diagnosis-{norm}-{as_fraction(eps).replace('/', '_')}-{split}{len(x)}-"
    name += f"{short_hash([*decisive.values(), str(surrogate)])}.json"
    path = Path(out) if out is not None else opened.folder / name
    _claim(path, norm=norm, eps=eps, **decisive)
    place = resolve_device(device)

    def other() -> nn.Module:
        if isinstance(surrogate, nn.Module):
            return surrogate
        if surrogate is not None:
            return open_trained(surrogate).model.to(place)
        return _train_surrogate(dataset, place, seed, watcher)

    model = opened.model.to(place).eval()
    network = Identity.of(model, x.shape[1:])
    if out is None:
        write_present(opened.folder, opened.sha256, network, changed=False)
    diagnosis = diagnose(
        model,
        x,
        y,
        norm=norm,
        eps=eps,
        surrogate=other,
        seed=seed,
        batch_size=batch_size,
        watcher=watcher,
    )
    diagnosis = replace(diagnosis, checkpoint_sha256=opened.sha256, computes=network.computes)
    diagnosis.save(path)
    return DiagnosedRun(diagnosis, path)


def _train_surrogate(data: Dataset, device: torch.device, seed: int, watcher: Watcher) -> nn.Module:
    """A ResNet-8 after a short standard training; its first stride keeps maps small on large images."""
    few, none = data.train.subset(_SURROGATE_IMAGES), ImageSet(data.test.images[:0], data.test.labels[:0])
    stride = min(max(1, max(data.image_size) // 32), 9)
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "surrogate"))
        model = models.create(
            "resnet8",
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            strides=f"{stride}22",
            mean=data.mean,
            std=data.std,
        )
    options = TrainOptions(epochs=_SURROGATE_EPOCHS, batch_size=64, schedule="one-cycle", seed=seed, device=str(device))

    def watch(progress: Progress) -> None:
        watcher(replace(progress, phase=f"transfer: surrogate, {progress.phase}"))

    fit(model, replace(data, train=few, validation=none), Standard(), options, watcher=watch)
    return model.eval()


def _claim(path: Path, **settings: object) -> None:
    """Refuse what is in the way; a diagnosis with the same settings may be replaced."""
    claim(path, ours=json_with("format", "findings", **settings))

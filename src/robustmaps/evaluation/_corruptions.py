"""Accuracy on corrupted images, by corruption and severity (arXiv 1903.12261)."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustmaps.data import CorruptedImages, ImageSet
from robustmaps.engine import ranks
from robustmaps.engine.checked import Damaged
from robustmaps.engine.device import device_name, device_of
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import remove, write_json
from robustmaps.engine.finite import is_right, undecided
from robustmaps.engine.measured import Measured
from robustmaps.engine.memory import usual_batch
from robustmaps.engine.numbers import check_whole
from robustmaps.engine.progress import Progress, Watcher, ignore
from robustmaps.engine.ranks.agreeing import from_main, gather
from robustmaps.engine.reading.plain import read_json
from robustmaps.engine.view import AttackView, plain_view
from robustmaps.evaluation._agreement import Computed, read_computed
from robustmaps.evaluation._identity import Identity
from robustmaps.evaluation._state import undecided_text

_RECORD = "state.json"
# Verdicts; 0 is misclassified.
_RIGHT, _UNDECIDED = 1, 2


def mean_accuracy(correct: NDArray[np.bool_]) -> Measured:
    """Accuracy averaged over corruptions, severities or both, from verdicts (..., N), images last.

    The versions of an image are not independent, so the interval is for the mean of per-image averages: a 95 % Wilson
    score interval with the effective sample size that follows from their variance, or N if all images agree.
    """
    each = correct.reshape(-1, correct.shape[-1]).mean(0)
    value, count = float(each.mean()), float(len(each))
    if count < 2:
        return Measured(value, 0.0, 1.0, percent=True)
    if (variance := float(each.var())) > 0:
        count *= value * (1 - value) / variance
    return Measured.wilson(value, count)


@dataclass(frozen=True)
class CorruptionEvaluation:
    """A network's accuracy on corrupted images.

    Attributes:
        correct: the verdicts of each corruption, boolean, (5, N), severities 1 to 5.
        fingerprint: hash of the image files.
        seconds: wall time, without results that were already known.
        environment: device and PyTorch version.
        checkpoint_sha256: hash of the weights' file, if any.
        undecided: versions of images whose logits have no prediction, such as NaN; they count as misclassified.
        computes: what the network computes on a few fixed images; see `Evaluation`.
    """

    correct: Mapping[str, NDArray[np.bool_]]
    fingerprint: str
    seconds: float
    environment: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_sha256: str | None = None
    undecided: int = 0
    computes: Computed | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the figures, in words."""
        versions = sum(right.size for right in self.correct.values())
        return (undecided_text(self.undecided, versions),) if self.undecided else ()

    @property
    def images(self) -> int:
        """The number of images, each with five versions of every corruption."""
        return int(next(iter(self.correct.values())).shape[1])

    def accuracies(self, name: str) -> tuple[Measured, ...]:
        """Accuracy under a corruption at severities 1 to 5, with Wilson intervals."""
        return tuple(Measured.share(int(right.sum()), len(right)) for right in self.correct[name])

    def mean(self, name: str | None = None) -> Measured:
        """Mean accuracy over the severities of a corruption, or over all corruptions."""
        return mean_accuracy(np.stack(list(self.correct.values())) if name is None else self.correct[name])

    def by_severity(self) -> tuple[Measured, ...]:
        """Mean accuracy over all corruptions at severities 1 to 5."""
        stacked = np.stack(list(self.correct.values()))
        return tuple(mean_accuracy(stacked[:, severity]) for severity in range(stacked.shape[1]))

    def to_dict(self) -> dict[str, Any]:
        """The figures without verdicts, ready for JSON."""
        return {
            "kind": "corruptions",
            "images": self.images,
            "mean_corruption_accuracy": self.mean().to_dict(),
            "severities": [mean.to_dict() for mean in self.by_severity()],
            "corruptions": {
                name: {
                    "mean": self.mean(name).to_dict(),
                    "severities": [rate.to_dict() for rate in self.accuracies(name)],
                }
                for name in self.correct
            },
            "fingerprint": self.fingerprint,
            "seconds": self.seconds,
            "checkpoint_sha256": self.checkpoint_sha256,
            "environment": dict(self.environment),
            "undecided": self.undecided,
            "warnings": list(self.warnings),
            "computes": list(self.computes) if isinstance(self.computes, tuple) else self.computes,
        }


def evaluate_corruptions(
    model: nn.Module,
    corrupted: CorruptedImages,
    *,
    samples: int | None = None,
    batch_size: int | None = None,
    state: str | Path | None = None,
    watcher: Watcher = ignore,
) -> CorruptionEvaluation:
    """Classify corrupted images with a network in evaluation mode and float32; it is restored afterwards.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K), on any device.
        corrupted: the result of `robustmaps.data.open_corruptions`.
        samples: number of images, stratified by class, the same for all corruptions; None for all.
        batch_size: images per batch; None for the device's usual size.
        state: a folder for the verdicts of each finished corruption, from which the same call resumes.
        watcher: receives progress reports.

    Raises:
        InputError: the network can't take these images, or has too few classes, or ``state`` belongs to another
            network or other images.
    """
    device = device_of(model)
    batch = usual_batch(device) if batch_size is None else batch_size
    check_whole("batch_size", batch, 1)
    rows = _choose(corrupted.labels, samples)
    network = Identity.of(model, corrupted.shape)
    began = time.perf_counter()
    with plain_view(model) as plain, torch.no_grad():
        _check_classes(plain, corrupted, device)
        verdicts = from_main(lambda: {} if state is None else _known(Path(state), network, corrupted, len(rows)))
        missing = [name for name in corrupted.names if name not in verdicts]
        for name in missing:

            def report(done: int, total: int, accuracy: float, name: str = name) -> None:
                before = missing.index(name) * total
                left = (time.perf_counter() - began) * (len(missing) * total / (before + done) - 1)
                watcher(Progress(name, done, total, "images", {"accuracy": accuracy}, left))

            found = verdicts[name] = _classify(
                plain, corrupted.images(name), corrupted.labels, rows, batch, device, report
            )
            if state is not None:
                packed = {"correct": _packed(found == _RIGHT), "undecided": _packed(found == _UNDECIDED)}
                write_json(Path(state) / f"{name}.json", packed)
    environment = {"device": device_name(device), "torch": torch.__version__, "batch_size": batch}
    seconds = time.perf_counter() - began
    return CorruptionEvaluation(
        {name: verdicts[name] == _RIGHT for name in corrupted.names},
        corrupted.fingerprint(),
        seconds,
        environment,
        undecided=sum(int((found == _UNDECIDED).sum()) for found in verdicts.values()),
        computes=network.computes,
    )


def corruption_files(names: Iterable[str]) -> list[str]:
    """The names of all files in the folder of a state, with those of earlier versions."""
    return [_RECORD, *(f"{name}{ending}" for name in names for ending in (".json", ".npy"))]


def _known(state: Path, network: Identity, corrupted: CorruptedImages, images: int) -> dict[str, NDArray[np.uint8]]:
    """The verdicts of the corruptions that are finished."""
    _claim(state, network, {"corruptions": corrupted.fingerprint(), "images": images}, corrupted.names)
    files = {name: state / f"{name}.json" for name in corrupted.names}
    return {name: _read_verdicts(file, images) for name, file in files.items() if file.exists()}


def _claim(state: Path, network: Identity, others: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a state of another network or other images; drop verdicts without a record of theirs."""
    record, mine = state / _RECORD, {"network": network.weights, **others}
    if record.exists():
        try:
            found = read_json(record, "delete the folder and evaluate again")
            same = found["identity"] == mine and network.matches(read_computed(found["computes"]))
        except Damaged:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise InputError(
                f"{state}: contains the state of an evaluation of another network or other images; choose another "
                "folder or delete this one"
            )
        return
    for name in corruption_files(names):
        remove(state / name)
    write_json(record, {"identity": mine, "computes": network.computes})


def _classify(
    plain: AttackView,
    images: Tensor,
    labels: Tensor,
    rows: Tensor,
    batch: int,
    device: torch.device,
    report: Callable[[int, int, float], None],
) -> NDArray[np.uint8]:
    """Verdicts (5, n) on these rows of the versions (5, N, C, H, W) of one corruption.

    Ranks share out whole batches, which are those that a single process makes.
    """
    verdicts = torch.zeros(len(images), len(rows), dtype=torch.uint8)
    done = right = 0
    parts = [(severity, start) for severity in range(len(images)) for start in range(0, len(rows), batch)]
    for severity, start in parts[ranks.rank() :: ranks.size()]:
        part = rows[start : start + batch]
        logits = plain(images[severity][part].to(device).float().div_(255)).cpu()
        found = is_right(logits, labels[part])
        verdicts[severity, start : start + batch] = torch.where(undecided(logits), _UNDECIDED, found.byte() * _RIGHT)
        done, right = done + len(part), right + int(found.sum())
        report(min(done * ranks.size(), verdicts.numel()), verdicts.numel(), right / done)
    together: NDArray[np.uint8] = np.maximum.reduce(gather(verdicts.numpy()))
    return together


def _packed(which: NDArray[np.bool_]) -> str:
    """Booleans (5, images) as the bits of a hexadecimal number."""
    return np.packbits(which, axis=1).tobytes().hex()


def _read_verdicts(file: Path, images: int) -> NDArray[np.uint8]:
    """The verdicts (5, images) that were written with `_packed`."""
    values = read_json(file, "delete it")
    verdicts = np.zeros((5, images), dtype=np.uint8)
    for name, verdict in (("correct", _RIGHT), ("undecided", _UNDECIDED)):
        packed = np.frombuffer(bytes.fromhex(values[name]), dtype=np.uint8)
        which = np.unpackbits(packed.reshape(-1, -(-images // 8)), axis=1, count=images)
        verdicts[which.astype(bool)] = verdict
    return verdicts


def _choose(labels: Tensor, samples: int | None) -> Tensor:
    """Rows of the images to use, the same as `ImageSet.subset` chooses from a test split in the same order."""
    rows = torch.arange(len(labels))
    if samples is None:
        return rows
    numbered = ImageSet(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels)
    return numbered.rows(samples)


def _check_classes(plain: AttackView, corrupted: CorruptedImages, device: torch.device) -> None:
    """Run the network once, so that an unsuitable one fails at once."""
    example = corrupted.images(corrupted.names[0])[0, :1].to(device).float().div_(255)
    try:
        logits = plain(example)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{corrupted.folder}: the network can't take images of shape {corrupted.shape} ({reason})"
        ) from error
    classes = int(corrupted.labels.max()) + 1
    if classes > logits.shape[1]:
        raise InputError(f"{corrupted.folder}: labels of {classes} classes; the network has only {logits.shape[1]}")
